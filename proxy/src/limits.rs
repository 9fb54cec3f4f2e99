//! Every bound of the gateway: its name, its unit and its default.
