"""Established flows: one epoll set with plain callbacks, and the buffers and counters that flows share."""
