"""Many tables in one program."""
