//! What can go wrong, as clients, workers and metrics name it.

use std::fmt;

use crate::message::Body;

/// What went wrong, in the contract's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Code {
    /// 400: the request makes no sense.
    Invalid,
    /// 401: the peer may not do this.
    Unauthorized,
    /// 404: nobody serves this action, though the service runs.
    UnknownAction,
    /// 408: no answer within the deadline.
    Timeout,
    /// 413: above a size limit.
    TooLarge,
    /// 429: try again later.
    Busy,
    /// 499: the client or an operator withdrew the command.
    Cancelled,
    /// 500: the worker failed.
    WorkerError,
    /// 503: no worker serves this.
    NoWorker,
    /// 503: the gateway has no NATS right now.
    BusDown,
}

impl Code {
    /// Every code, for metrics and tables.
    pub const ALL: [Self; 10] = [
        Self::Invalid,
        Self::Unauthorized,
        Self::UnknownAction,
        Self::Timeout,
        Self::TooLarge,
        Self::Busy,
        Self::Cancelled,
        Self::WorkerError,
        Self::NoWorker,
        Self::BusDown,
    ];

    /// The name clients and metrics see.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Invalid => "invalid",
            Self::Unauthorized => "unauthorized",
            Self::UnknownAction => "unknown_action",
            Self::Timeout => "timeout",
            Self::TooLarge => "too_large",
            Self::Busy => "busy",
            Self::Cancelled => "cancelled",
            Self::WorkerError => "worker_error",
            Self::NoWorker => "no_worker",
            Self::BusDown => "bus_down",
        }
    }

    /// The number in `Nats-Service-Error-Code`.
    #[must_use]
    pub const fn number(self) -> u16 {
        match self {
            Self::Invalid => 400,
            Self::Unauthorized => 401,
            Self::UnknownAction => 404,
            Self::Timeout => 408,
            Self::TooLarge => 413,
            Self::Busy => 429,
            Self::Cancelled => 499,
            Self::WorkerError => 500,
            Self::NoWorker | Self::BusDown => 503,
        }
    }

    /// Reads `Nats-Service-Error-Code`; unknown numbers are the worker's error.
    #[must_use]
    pub const fn from_number(number: u16) -> Self {
        match number {
            400 => Self::Invalid,
            401 => Self::Unauthorized,
            404 => Self::UnknownAction,
            408 => Self::Timeout,
            413 => Self::TooLarge,
            429 => Self::Busy,
            499 => Self::Cancelled,
            503 => Self::NoWorker,
            _ => Self::WorkerError,
        }
    }
}

/// A failure told to a client in its own error shape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// What kind of failure.
    pub code: Code,
    /// One sentence that says what to do next.
    pub text: String,
    /// More from the worker (traceback, output); JSON or empty.
    pub details: Body,
}

impl Fault {
    /// A fault without details.
    #[must_use]
    pub fn new(code: Code, text: impl Into<String>) -> Self {
        Self {
            code,
            text: text.into(),
            details: Body::default(),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code.name(), self.text)
    }
}

impl std::error::Error for Fault {}
