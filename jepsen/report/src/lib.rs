//! Pages and plots of a test run.
