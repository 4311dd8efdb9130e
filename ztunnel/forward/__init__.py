"""What pods only forward, for containers, VMs or VPNs inside them: judged inwards, refused outwards."""
