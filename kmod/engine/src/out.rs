// SPDX-License-Identifier: GPL-2.0

//! A caller's buffer that is written front to back.

use crate::reason::Reason;

pub(crate) struct Out<'a> {
    buf: &'a mut [u8],
    len: usize,
}

impl<'a> Out<'a> {
    pub(crate) fn new(buf: &'a mut [u8]) -> Self {
        Out { buf, len: 0 }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// What was written.
    pub(crate) fn bytes(&self) -> &[u8] {
        self.buf.get(..self.len).unwrap_or(&[])
    }

    /// Forgets what was written after the first `len` bytes.
    pub(crate) fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    #[inline]
    pub(crate) fn put(&mut self, bytes: &[u8]) -> Result<(), Reason> {
        let free = self.buf.get_mut(self.len..).ok_or(Reason::OutputFull)?;
        let (to, _) = free
            .split_at_mut_checked(bytes.len())
            .ok_or(Reason::OutputFull)?;
        to.copy_from_slice(bytes);
        self.len = self.len.wrapping_add(bytes.len());
        Ok(())
    }

    #[inline]
    pub(crate) fn push(&mut self, byte: u8) -> Result<(), Reason> {
        *self.buf.get_mut(self.len).ok_or(Reason::OutputFull)? = byte;
        self.len = self.len.wrapping_add(1);
        Ok(())
    }

    /// What `write` writes to the rest of the buffer, of which it returns the length.
    pub(crate) fn put_with(
        &mut self,
        write: impl FnOnce(&mut [u8]) -> Result<usize, Reason>,
    ) -> Result<(), Reason> {
        let free = self.buf.get_mut(self.len..).ok_or(Reason::OutputFull)?;
        self.len = self.len.wrapping_add(write(free)?);
        Ok(())
    }

    /// A number in decimal.
    pub(crate) fn decimal(&mut self, number: u32) -> Result<(), Reason> {
        let tens = number / 10;
        if tens != 0 {
            self.decimal(tens)?;
        }
        self.push(b'0'.wrapping_add((number % 10) as u8))
    }

    /// A byte as RFC 3986, section 2.1, has it.
    pub(crate) fn encoded(&mut self, byte: u8) -> Result<(), Reason> {
        let digit = |value: u8| match value {
            0..=9 => b'0'.wrapping_add(value),
            _ => b'A'.wrapping_add(value.wrapping_sub(10)),
        };
        self.put(&[b'%', digit(byte >> 4), digit(byte & 15)])
    }

    /// One field line.
    pub(crate) fn field(&mut self, name: &[u8], value: &[u8]) -> Result<(), Reason> {
        self.put(name)?;
        self.put(b": ")?;
        self.put(value)?;
        self.put(b"\r\n")
    }
}
