//! The Ringway HTTP gateway.
