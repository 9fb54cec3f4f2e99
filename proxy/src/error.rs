//! Faults, by who is to blame.
