"""How the kernel brings connections to the proxy: eBPF programs, the maps that steer them, what they
report."""
