//! Errors of the layers below in the words of a command's error.

use block::ErrorKind;
use qmp::Error;

/// What broke a rule says so itself; what failed is named with node, operation and offset (I11).
pub(crate) fn describe(error: &block::Error) -> String {
    let rule = matches!(
        error.kind(),
        ErrorKind::InvalidRequest | ErrorKind::TimedOut | ErrorKind::NotPermitted
    );
    if rule && error.op().is_none() && !error.message().is_empty() {
        error.message().to_owned()
    } else {
        error.to_string()
    }
}

/// The same as the error of a command.
pub(crate) fn in_words(error: &block::Error) -> Error {
    Error::generic(describe(error))
}

/// There is no node of this name.
pub(crate) fn no_node(name: &str) -> Error {
    Error::generic(format!(
        "Cannot find device='{name}' nor node-name='{name}'"
    ))
}
