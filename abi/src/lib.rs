//! The Ringway plugin ABI.
