"""The benchmark: ztunnel beside no mesh and beside a pair of Envoys, as ratios within one run."""
