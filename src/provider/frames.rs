//! AWS's event stream: binary frames with headers and a payload, as Bedrock streams its answers.
//!
//! Source: the Amazon Event Stream specification. Checksums are not checked: TLS has done so, and what is read here only
//! counts.

/// Lengths of the frame and of its headers, and their checksum.
const PRELUDE: usize = 12;
/// The checksum at the end.
const TRAILER: usize = 4;
/// No header block is larger.
const MOST_HEADERS: usize = 128 * 1024;
/// No frame is larger.
const LARGEST: usize = 24 * 1024 * 1024;

/// What the next bytes are.
enum Inside {
    Prelude,
    Headers {
        length: usize,
        payload: usize,
    },
    Payload {
        left: usize,
    },
    Trailer {
        left: usize,
    },
    /// These are no frames.
    Lost,
}

/// Takes frames apart as their bytes come.
pub(crate) struct Frames {
    inside: Inside,
    held: Vec<u8>,
}

/// A part of a frame.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Part<'a> {
    /// The exception that the payload to come tells of, if it does.
    Begin(Option<String>),
    /// A piece of the payload.
    Payload(&'a [u8]),
    /// The frame is over.
    End,
}

impl Frames {
    pub(crate) fn new() -> Self {
        Self { inside: Inside::Prelude, held: Vec::new() }
    }

    /// The next part, and what comes after it; `None` when more bytes are needed.
    pub(crate) fn next<'a>(&mut self, bytes: &mut &'a [u8]) -> Option<Part<'a>> {
        loop {
            match self.inside {
                Inside::Lost => return None,
                Inside::Prelude => {
                    self.hold(PRELUDE, bytes)?;
                    let number = |at: usize| {
                        let digits = self.held.get(at..at + 4).unwrap_or_default();
                        digits.iter().fold(0_usize, |number, byte| number << 8 | usize::from(*byte))
                    };
                    let (total, headers) = (number(0), number(4));
                    let payload = total.checked_sub(PRELUDE + TRAILER).and_then(|rest| rest.checked_sub(headers));
                    self.held.clear();
                    self.inside = match payload {
                        Some(payload) if headers <= MOST_HEADERS && total <= LARGEST => {
                            Inside::Headers { length: headers, payload }
                        }
                        _ => Inside::Lost,
                    };
                }
                Inside::Headers { length, payload } => {
                    self.hold(length, bytes)?;
                    let exception = exception(&self.held);
                    self.held = Vec::new();
                    self.inside = Inside::Payload { left: payload };
                    return Some(Part::Begin(exception));
                }
                Inside::Payload { left: 0 } => {
                    self.inside = Inside::Trailer { left: TRAILER };
                    return Some(Part::End);
                }
                Inside::Payload { left } => {
                    let piece = take(left, bytes)?;
                    self.inside = Inside::Payload { left: left - piece.len() };
                    return Some(Part::Payload(piece));
                }
                Inside::Trailer { left: 0 } => self.inside = Inside::Prelude,
                Inside::Trailer { left } => {
                    let piece = take(left, bytes)?;
                    self.inside = Inside::Trailer { left: left - piece.len() };
                }
            }
        }
    }

    /// Holds bytes until there are so many.
    fn hold(&mut self, length: usize, bytes: &mut &[u8]) -> Option<()> {
        let missing = length.saturating_sub(self.held.len());
        if missing > 0 {
            self.held.extend_from_slice(take(missing, bytes)?);
        }
        (self.held.len() >= length).then_some(())
    }
}

/// Up to so many bytes from the front; `None` if there are none.
fn take<'a>(most: usize, bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (piece, rest) = bytes.split_at_checked(most.min(bytes.len()))?;
    *bytes = rest;
    (!piece.is_empty()).then_some(piece)
}

/// The type of an exception or error that the headers of a frame name.
fn exception(headers: &[u8]) -> Option<String> {
    let (mut is_failure, mut name) = (false, None);
    let mut rest = headers;
    while let Some((header, value)) = header(&mut rest) {
        match header {
            b":message-type" => is_failure = matches!(value, b"exception" | b"error"),
            b":exception-type" | b":error-code" => name = Some(String::from_utf8_lossy(value).into_owned()),
            _ => {}
        }
    }
    is_failure.then(|| name.unwrap_or_default())
}

/// The next header: its name and, if it is text or bytes, its value.
fn header<'a>(rest: &mut &'a [u8]) -> Option<(&'a [u8], &'a [u8])> {
    let mut part = |length: usize| {
        let (part, after) = rest.split_at_checked(length)?;
        *rest = after;
        Some(part)
    };
    let length = usize::from(*part(1)?.first()?);
    let name = part(length)?;
    let value = match part(1)?.first()? {
        0 | 1 => &[],
        2 => part(1)?,
        3 => part(2)?,
        4 => part(4)?,
        5 | 8 => part(8)?,
        6 | 7 => {
            let length = part(2)?.iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
            part(length)?
        }
        9 => part(16)?,
        _ => return None,
    };
    Some((name, value))
}
