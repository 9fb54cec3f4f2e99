//! Configuration: TOML or JSON in, one checked `Config` out.
