//! Places of the caller that a call reads or writes, as C gives them.
//!
//! Their methods are safe to call here because a value of these types only comes from the caller of
//! a driver's entry point, who answers for it as the driver's manual says.

use std::ffi::{CStr, c_char, c_void};

/// Where one value is wanted; null where none is.
#[repr(transparent)]
pub struct Out<T>(*mut T);

impl<T> Out<T> {
    pub fn set(&self, value: T) {
        if !self.0.is_null() {
            // SAFETY: the caller of the driver gave a place for one value.
            unsafe { self.0.write(value) };
        }
    }
}

/// Where several values are.
#[repr(transparent)]
pub struct In<T>(*const T);

impl<T: Copy> In<T> {
    /// Value number `index`.
    pub fn get(&self, index: usize) -> T {
        // SAFETY: the caller of the driver gave as many as the call's other parameters say.
        unsafe { self.0.add(index).read() }
    }
}

/// A text that ends with a zero.
#[repr(transparent)]
pub struct Text(*const c_char);

impl Text {
    pub fn read(&self) -> String {
        // SAFETY: the caller of the driver gave a text that ends with a zero.
        unsafe { CStr::from_ptr(self.0) }.to_string_lossy().into_owned()
    }
}

/// Bytes whose number stands elsewhere.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct Bytes(pub *mut c_void);

impl Bytes {
    pub fn read(self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        // SAFETY: the caller of the driver gave `count` bytes to read.
        unsafe { self.0.cast::<u8>().copy_to_nonoverlapping(bytes.as_mut_ptr(), count) };
        bytes
    }

    pub fn write(self, bytes: &[u8]) {
        // SAFETY: the caller of the driver gave room for as many bytes.
        unsafe { self.0.cast::<u8>().copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
    }

    /// The bytes `offset` further on.
    pub fn further(self, offset: usize) -> Self {
        Self(self.0.wrapping_byte_add(offset))
    }
}
