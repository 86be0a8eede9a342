//! Stands in front of the clocks and the disk of one process.
