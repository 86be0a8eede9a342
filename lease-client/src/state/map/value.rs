//! What a [`StateMap`](super::StateMap) holds: values that can be written down and read back.

use bytes::Bytes;

/// A value of a [`StateMap`](super::StateMap). Ready for `Vec<u8>`, [`Bytes`], `String`, `u64` and
/// `i64`.
///
/// Both ends of a move may run different versions of the application, the newer one at either of
/// them: write a version into the bytes where that matters, and let each version read what those
/// that may run beside it write. What it cannot read does not move; what it reads and does not keep
/// is lost, without a complaint.
///
/// ```
/// use leasehold_client::state::StateValue;
///
/// struct Cart {
///     items: u32,
///     note: String,
/// }
///
/// impl StateValue for Cart {
///     fn encode(&self, out: &mut Vec<u8>) {
///         out.extend_from_slice(&self.items.to_le_bytes());
///         out.extend_from_slice(self.note.as_bytes());
///     }
///
///     fn decode(bytes: &[u8]) -> Option<Self> {
///         let (items, note) = bytes.split_first_chunk()?;
///         Some(Cart {
///             items: u32::from_le_bytes(*items),
///             note: String::from_utf8(note.to_vec()).ok()?,
///         })
///     }
///
///     fn size_bytes(&self) -> usize {
///         4 + self.note.len()
///     }
/// }
/// ```
pub trait StateValue: Sized + Send + 'static {
    /// Appends the value to `out`. Equal values append equal bytes in every process of the same
    /// version; values whose bytes differ are different ones when both ends of a move are compared.
    fn encode(&self, out: &mut Vec<u8>);

    /// Reads back what [`encode`](StateValue::encode) appended; `None` for anything else. The bytes
    /// come from the network: any may come.
    fn decode(bytes: &[u8]) -> Option<Self>;

    /// How many bytes [`encode`](StateValue::encode) appends, or somewhat more. Asked at every
    /// write: a length that is at hand, not one that is counted. A large value that is said to be
    /// smaller than it is may keep its slice from moving.
    fn size_bytes(&self) -> usize;
}

impl StateValue for Vec<u8> {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self);
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        Some(bytes.to_vec())
    }

    fn size_bytes(&self) -> usize {
        self.len()
    }
}

impl StateValue for Bytes {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self);
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        Some(Bytes::copy_from_slice(bytes))
    }

    fn size_bytes(&self) -> usize {
        self.len()
    }
}

impl StateValue for String {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.as_bytes());
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        std::str::from_utf8(bytes).ok().map(str::to_owned)
    }

    fn size_bytes(&self) -> usize {
        self.len()
    }
}

/// Eight bytes, little-endian.
impl StateValue for u64 {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.to_le_bytes());
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        Some(u64::from_le_bytes(bytes.try_into().ok()?))
    }

    fn size_bytes(&self) -> usize {
        size_of::<u64>()
    }
}

/// Eight bytes, little-endian, two's complement.
impl StateValue for i64 {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.to_le_bytes());
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        Some(i64::from_le_bytes(bytes.try_into().ok()?))
    }

    fn size_bytes(&self) -> usize {
        size_of::<i64>()
    }
}
