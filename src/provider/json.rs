//! JSON taken apart one level at a time, so that large bodies (images, embeddings) are skipped, not built up in memory.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde_json::value::RawValue;

/// The members of an object, unparsed.
pub(crate) type Object<'a> = BTreeMap<String, &'a RawValue>;

/// The members of an object; `None` if it is none.
pub(crate) fn object(json: &str) -> Option<Object<'_>> {
    serde_json::from_str(json).ok()
}

/// The items of a list; `None` if it is none.
pub(crate) fn list(json: &str) -> Option<Vec<&RawValue>> {
    serde_json::from_str(json).ok()
}

/// A string, copied only if it has escapes; `None` if it is none.
pub(crate) fn string(json: &str) -> Option<Cow<'_, str>> {
    let borrowed: Option<&str> = serde_json::from_str(json).ok();
    borrowed.map(Cow::Borrowed).or_else(|| serde_json::from_str(json).ok().map(Cow::Owned))
}

/// A whole number that is not negative; `None` if it is none.
pub(crate) fn number(json: &str) -> Option<u64> {
    serde_json::from_str(json).ok()
}
