"""Messages generated from `ztunnel/xds/proto`; see `ztunnel/xds/__init__.py` for the command."""
