"""May the draws be believed?"""
