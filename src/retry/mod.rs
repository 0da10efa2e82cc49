//! One decision per failed attempt: stop, or go on after this long.
