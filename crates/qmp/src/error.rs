//! The error of a command, as a client sees it: a class that programs match on, a text for people.
//!
//! The classes are QEMU's; managers written for QEMU match on them. The texts name the parameter
//! and the reason.

use serde::Serialize;

/// Why a command was refused or failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, thiserror::Error)]
#[error("{desc}")]
pub struct Error {
    class: ErrorClass,
    desc: String,
}

/// What kind of failure an [`Error`] is; nearly everything is `GenericError`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum ErrorClass {
    /// Read the description.
    GenericError,
    /// The command does not exist, or not before capabilities negotiation.
    CommandNotFound,
    /// The device is not active, or the block job is not there.
    DeviceNotActive,
    /// The device or node is not there.
    DeviceNotFound,
}

impl Error {
    /// An error of class `GenericError`.
    pub fn generic(desc: impl Into<String>) -> Self {
        Self::new(ErrorClass::GenericError, desc)
    }

    /// An error of class `class`.
    pub fn new(class: ErrorClass, desc: impl Into<String>) -> Self {
        let desc = desc.into();
        Self { class, desc }
    }

    /// What programs match on.
    pub fn class(&self) -> ErrorClass {
        self.class
    }

    /// What people read.
    pub fn desc(&self) -> &str {
        &self.desc
    }

    pub(crate) fn command_not_found(name: &str) -> Self {
        let desc = format!("The command {name} has not been found");
        Self::new(ErrorClass::CommandNotFound, desc)
    }

    pub(crate) fn missing(parameter: &str) -> Self {
        Self::generic(format!("Parameter '{parameter}' is missing"))
    }

    pub(crate) fn unexpected(parameter: &str) -> Self {
        Self::generic(format!("Parameter '{parameter}' is unexpected"))
    }

    pub(crate) fn invalid_type(parameter: &str, expected: &str) -> Self {
        let desc = format!("Invalid parameter type for '{parameter}', expected: {expected}");
        Self::generic(desc)
    }

    pub(crate) fn invalid_value(parameter: &str, value: &str) -> Self {
        let desc = format!("Parameter '{parameter}' does not accept value '{value}'");
        Self::generic(desc)
    }

    pub(crate) fn expects(parameter: &str, what: &str) -> Self {
        Self::generic(format!("Parameter '{parameter}' expects {what}"))
    }
}
