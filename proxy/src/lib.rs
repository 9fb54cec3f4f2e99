//! The Ringway HTTP gateway: library of the command `ringway`.
//!
//! # Life of a request
//!
//! In order, as `module::function`; a test checks that each exists.
//!
//! 1. `worker::accept_tcp` takes the connection, `worker::admit` checks bounds and `on_accept`, `worker::connection::connection` is its task
//! 2. `exchange::serve` is the loop of the connection, on one slot of `view::slab::take`
//! 3. `exchange::head::read_request` reads, `http1::head::parse_request` writes the view in place
//! 4. `exchange::request::decide` finds the route (`route::find`) and runs `plugin::frame::run_request`
//! 5. `exchange::forward::forward` leases a connection (`worker::pool::lease`), which `upstream::pick::pick` chose a server for
//! 6. `http1::write::write_request_head` lays the head out; `exchange::forward::attempt` sends it, and the body
//! 7. `exchange::response::run` reads the response (`http1::head::parse_response`), `plugin::frame::run_response` runs post hooks
//! 8. `http1::write::write_response_head`, then the body: with the head, by `exchange::response::pass_body`, or spliced by
//!    `exchange::splice::run`
//! 9. `exchange::made::send_made` instead, when a plugin or the gateway answered
//! 10. `exchange::finish` tells `plugin::frame::run_done` and counts; the connection goes on, parks or lingers (`worker::connection::linger`)

pub mod address;
pub mod admin;
pub mod cli;
pub mod clock;
pub mod config;
pub mod demo;
pub mod error;
pub mod exchange;
pub mod hash;
pub mod http1;
pub mod limits;
pub mod log_limit;
pub mod logs;
pub mod plugin;
pub mod route;
pub mod run;
pub mod signals;
pub mod supervisor;
pub mod upstream;
pub mod verify;
pub mod view;
pub mod worker;
