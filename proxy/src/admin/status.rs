//! What a plugin is at a moment: one word, and the reason when it is not an ordinary one.
#![forbid(unsafe_code)]

/// What has been decided about a loaded plugin, by an operator or by the gateway.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Standing {
    /// Its hooks run.
    #[default]
    InForce,
    /// An operator has put it out: its links pass it by or refuse, by `on_error`.
    Disabled,
    /// The gateway has put it out, with the same effect: it failed too often, or it brought the process down.
    Quarantined {
        /// Why, for the operator.
        reason: String,
    },
}

impl Standing {
    /// Whether its hooks run.
    pub fn is_in_force(&self) -> bool {
        *self == Standing::InForce
    }

    /// What it is shown as.
    pub fn status(&self) -> Status {
        match self {
            Standing::InForce => Status::Active,
            Standing::Disabled => Status::Disabled,
            Standing::Quarantined { .. } => Status::Quarantined,
        }
    }

    /// Why it is quarantined.
    pub fn reason(&self) -> Option<&str> {
        match self {
            Standing::Quarantined { reason } => Some(reason),
            Standing::InForce | Standing::Disabled => None,
        }
    }
}

/// The word that is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// A change that loads it is under way.
    Loading,
    /// Its hooks run.
    Active,
    /// Not in force any more; exchanges in flight still run it.
    Draining,
    /// An operator has put it out.
    Disabled,
    /// The gateway has put it out.
    Quarantined,
    /// It could not be loaded, and no version of it is in force.
    Error,
}

impl Status {
    /// As the API writes it.
    pub fn word(self) -> &'static str {
        match self {
            Status::Loading => "loading",
            Status::Active => "active",
            Status::Draining => "draining",
            Status::Disabled => "disabled",
            Status::Quarantined => "quarantined",
            Status::Error => "error",
        }
    }
}
