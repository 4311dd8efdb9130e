"""Who we are and who the peer is: keys and certificates, their signing, rotation and verification."""
