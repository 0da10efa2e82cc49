//! Server-sent events, taken apart as their bytes come.
//!
//! Source: the HTML standard, section 9.2: lines end with CR, LF or both; a blank line ends an event.

/// Names of events that matter are shorter.
const LONGEST_NAME: usize = 32;

/// What the next bytes are.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Inside {
    /// The name of a field, so many bytes of it matching what it may be.
    Field,
    /// The one space that may come before a value.
    Space(Field),
    Value(Field),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Field {
    Event,
    Data,
    Other,
}

/// A part of an event.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Part<'a> {
    /// A piece of its data.
    Data(&'a [u8]),
    /// The event is over.
    End,
}

/// Takes events apart.
pub(crate) struct Events {
    inside: Inside,
    field: Vec<u8>,
    name: Vec<u8>,
    /// Whether a CR came last, so that an LF now is part of the same line end.
    after_cr: bool,
    blank: bool,
    event: Event,
}

/// How far the event under way has come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Event {
    Begun,
    HasData,
    /// The next line begins another.
    Over,
}

impl Events {
    pub(crate) fn new() -> Self {
        Self {
            inside: Inside::Field,
            field: Vec::new(),
            name: Vec::new(),
            after_cr: false,
            blank: true,
            event: Event::Begun,
        }
    }

    /// The name of the event under way, or of the one that has just ended.
    pub(crate) fn name(&self) -> &[u8] {
        &self.name
    }

    /// The next part; `None` when more bytes are needed.
    pub(crate) fn next<'a>(&mut self, bytes: &mut &'a [u8]) -> Option<Part<'a>> {
        loop {
            let (&first, after) = bytes.split_first()?;
            if first == b'\n' && std::mem::take(&mut self.after_cr) {
                *bytes = after;
                continue;
            }
            self.after_cr = false;
            if matches!(first, b'\n' | b'\r') {
                *bytes = after;
                self.after_cr = first == b'\r';
                if self.end_line() {
                    return Some(Part::End);
                }
                if self.inside == Inside::Value(Field::Data) || self.inside == Inside::Space(Field::Data) {
                    self.inside = Inside::Field;
                    // Lines of data are joined by a line end.
                    return Some(Part::Data(b"\n"));
                }
                self.inside = Inside::Field;
                continue;
            }
            self.begin_line();
            match self.inside {
                Inside::Field => {
                    *bytes = after;
                    self.take_field(first);
                }
                Inside::Space(field) => {
                    self.inside = Inside::Value(field);
                    if first == b' ' {
                        *bytes = after;
                    }
                }
                Inside::Value(field) => {
                    let end = bytes.iter().position(|byte| matches!(byte, b'\n' | b'\r')).unwrap_or(bytes.len());
                    let (value, rest) = bytes.split_at_checked(end)?;
                    *bytes = rest;
                    match field {
                        Field::Data => {
                            self.event = Event::HasData;
                            return Some(Part::Data(value));
                        }
                        Field::Event => {
                            let room = LONGEST_NAME.saturating_sub(self.name.len());
                            self.name.extend_from_slice(value.get(..room.min(value.len())).unwrap_or_default());
                        }
                        Field::Other => {}
                    }
                }
            }
        }
    }

    fn begin_line(&mut self) {
        if std::mem::take(&mut self.blank) {
            self.field.clear();
            if self.event == Event::Over {
                self.event = Event::Begun;
                self.name.clear();
            }
        }
    }

    /// A line is over; tells whether an event is over with it.
    fn end_line(&mut self) -> bool {
        let blank = std::mem::replace(&mut self.blank, true);
        if !blank {
            return false;
        }
        std::mem::replace(&mut self.event, Event::Over) == Event::HasData
    }

    fn take_field(&mut self, byte: u8) {
        if byte == b':' {
            let field = match self.field.as_slice() {
                b"data" => Field::Data,
                b"event" => Field::Event,
                _ => Field::Other,
            };
            if field == Field::Event {
                self.name.clear();
            }
            self.inside = Inside::Space(field);
        } else if self.field.len() <= LONGEST_NAME {
            self.field.push(byte);
        }
    }
}
