//! The Ringway HTTP gateway.

pub mod address;
pub mod admin;
pub mod cli;
pub mod clock;
pub mod config;
pub mod demo;
pub mod error;
pub mod exchange;
pub mod http1;
pub mod limits;
pub mod log_limit;
pub mod logs;
pub mod plugin;
pub mod route;
pub mod run;
pub mod upstream;
pub mod view;
pub mod worker;
