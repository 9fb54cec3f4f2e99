//! The Ringway HTTP gateway.

pub mod config;
pub mod error;
pub mod http1;
pub mod limits;
pub mod plugin;
