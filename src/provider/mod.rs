//! What providers say, mean and count.
