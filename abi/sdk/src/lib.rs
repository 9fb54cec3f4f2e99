//! Safe Rust for authors of Ringway plugins.
