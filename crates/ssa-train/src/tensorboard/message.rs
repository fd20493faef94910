//! The `Event` message in the protobuf wire format.
//!
//! ```text
//! Event       1 wall_time: double   2 step: int64
//!             3 file_version: string | 5 summary: Summary | 7 session_log: SessionLog
//! Summary     1 value: repeated Value
//! Value       1 tag: string         2 simple_value: float
//! SessionLog  1 status: enum (START = 1)
//! ```

/// An event of a step.
pub(super) struct Event<'a> {
    /// Seconds since 1970.
    pub(super) wall_time: f64,
    /// The step it belongs to.
    pub(super) step: usize,
    /// The content.
    pub(super) content: Content<'a>,
}

/// The content of an event.
pub(super) enum Content<'a> {
    /// The version of the format.
    FileVersion,
    /// A session begins at the event's step.
    SessionStart,
    /// Named numbers.
    Scalars(&'a [(String, f64)]),
}

impl Event<'_> {
    /// Encodes the event.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut message = Message::default();
        message.double(1, self.wall_time);
        message.varint(2, self.step as u64);
        match self.content {
            Content::FileVersion => message.bytes(3, b"brain.Event:2"),
            Content::SessionStart => {
                let mut log = Message::default();
                log.varint(1, 1);
                message.bytes(7, &log.0);
            }
            Content::Scalars(scalars) => message.bytes(5, &summary(scalars)),
        }
        message.0
    }
}

fn summary(scalars: &[(String, f64)]) -> Vec<u8> {
    let mut summary = Message::default();
    for (tag, value) in scalars {
        let mut scalar = Message::default();
        scalar.bytes(1, tag.as_bytes());
        scalar.float(2, *value as f32);
        summary.bytes(1, &scalar.0);
    }
    summary.0
}

/// A message being written, field by field.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, field: u64, value: u64) {
        self.key(field, 0);
        self.raw_varint(value);
    }

    fn double(&mut self, field: u64, value: f64) {
        self.key(field, 1);
        self.0.extend(value.to_le_bytes());
    }

    fn bytes(&mut self, field: u64, value: &[u8]) {
        self.key(field, 2);
        self.raw_varint(value.len() as u64);
        self.0.extend(value);
    }

    fn float(&mut self, field: u64, value: f32) {
        self.key(field, 5);
        self.0.extend(value.to_le_bytes());
    }

    fn key(&mut self, field: u64, wire_type: u64) {
        self.raw_varint(field << 3 | wire_type);
    }

    /// Seven bits per byte, lowest first; the highest bit of a byte means that another byte
    /// follows.
    fn raw_varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }
}
