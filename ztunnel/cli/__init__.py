"""The command line: what each command needs is imported when it is called, not before."""
