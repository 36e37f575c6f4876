// SPDX-License-Identifier: GPL-2.0
//! What can go wrong, and with which exit code.

use std::fmt;

#[derive(Debug)]
pub enum Error {
    /// Bad usage, or a file that cannot be read: exit code 2.
    Usage(String),
    /// All problems of a configuration: exit code 2.
    Config(Vec<String>),
    /// The system refused, or is not ready: exit code 1.
    System(String),
}

impl Error {
    pub fn usage(message: impl Into<String>) -> Error {
        Error::Usage(message.into())
    }

    pub fn system(message: impl Into<String>) -> Error {
        Error::System(message.into())
    }

    pub fn exit_code(&self) -> u8 {
        match self {
            Error::Usage(_) | Error::Config(_) => 2,
            Error::System(_) => 1,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Usage(message) | Error::System(message) => write!(f, "xlbctl: {message}"),
            Error::Config(messages) => f.write_str(&messages.join("\n")),
        }
    }
}

/// `what: why`, for errors of the system.
pub trait Context<T> {
    fn context(self, what: impl fmt::Display) -> Result<T, Error>;
}

impl<T, E: fmt::Display> Context<T> for Result<T, E> {
    fn context(self, what: impl fmt::Display) -> Result<T, Error> {
        self.map_err(|err| Error::System(format!("{what}: {err:#}")))
    }
}
