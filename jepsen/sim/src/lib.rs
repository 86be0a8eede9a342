//! A deterministic world around the machines that ship.
