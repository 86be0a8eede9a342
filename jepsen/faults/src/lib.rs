//! Hosts, and what goes wrong with them.
