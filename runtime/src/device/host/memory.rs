//! Memory from the system: aligned, zeroed, given back when dropped; and pages of code.

use std::ffi::c_void;
use std::io;
use std::ptr;

use sail_ir::plan::ALIGNMENT;

use crate::device::DeviceError;

/// Large pages of x86-64; large runs start at one so that the system can use them.
const LARGE_PAGE_BYTES: usize = 2 << 20;
const PAGE_BYTES: usize = 4096;

/// A run of zeroed bytes that nothing else points to, aligned for any kernel.
///
/// Untouched pages cost nothing.
pub struct Memory {
    /// What the system gave, and its length.
    mapped: (*mut c_void, usize),
    start: *mut u8,
    bytes: usize,
}

// SAFETY: a `Memory` is plain bytes that belong to nobody else; pointers into it are handed out by
// its owner, who answers for their use.
unsafe impl Send for Memory {}
// SAFETY: as above; a shared `Memory` gives out only its address and length.
unsafe impl Sync for Memory {}

impl Memory {
    /// `bytes` zeros for `what`.
    ///
    /// Refuses what the system refuses.
    pub fn new(what: &'static str, bytes: u64) -> Result<Self, DeviceError> {
        let refuse = |because: String| DeviceError::Memory { what, bytes, because };
        let wanted = usize::try_from(bytes).map_err(|_| refuse("no such size".to_owned()))?;
        let large = wanted >= LARGE_PAGE_BYTES;
        let spare = if large { LARGE_PAGE_BYTES } else { 0 };
        let length = wanted
            .max(1)
            .checked_next_multiple_of(PAGE_BYTES)
            .and_then(|length| length.checked_add(spare))
            .ok_or_else(|| refuse("no such size".to_owned()))?;
        let mapped = map(length).map_err(|error| refuse(plain(&error)))?;
        let gap = if large { mapped.align_offset(LARGE_PAGE_BYTES) } else { 0 };
        // SAFETY: `gap` is less than a large page, and `length` has one to spare.
        let start = unsafe { mapped.cast::<u8>().add(gap) };
        if large {
            // SAFETY: `start .. start + wanted` lies in the mapping made above. Advice changes no
            // content, and whether it is taken does not matter.
            unsafe { libc::madvise(start.cast(), wanted, libc::MADV_HUGEPAGE) };
        }
        debug_assert!(start.addr().is_multiple_of(ALIGNMENT as usize));
        Ok(Self { mapped: (mapped, length), start, bytes: wanted })
    }

    /// First byte; a multiple of [`ALIGNMENT`].
    pub fn start(&self) -> *mut u8 {
        self.start
    }

    /// The byte at `offset`.
    ///
    /// # Panics
    ///
    /// When that is beyond the end.
    pub fn at(&self, offset: u64) -> *mut u8 {
        let offset = usize::try_from(offset).expect("broken invariant `memory.inside`: offset");
        assert!(offset <= self.bytes, "broken invariant `memory.inside`: {offset} {}", self.bytes);
        // SAFETY: the assertion keeps the pointer inside the mapping, or one past its end.
        unsafe { self.start.add(offset) }
    }

    /// All of it as values of `T`; a rest that is no whole value is left out.
    ///
    /// # Safety
    ///
    /// Nobody writes these bytes while the slice lives.
    pub unsafe fn values<T: Plain>(&self) -> &[T] {
        // SAFETY: the bytes are mapped, aligned to 256 and initialised (zeroed by the system), and
        // any bytes are a `T`; the caller answers for writers.
        unsafe { std::slice::from_raw_parts(self.start.cast(), self.bytes / size_of::<T>()) }
    }

    /// The same as a pointer and a length, to make a slice of that may be written.
    pub fn parts<T: Plain>(&self) -> (*mut T, usize) {
        (self.start.cast(), self.bytes / size_of::<T>())
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: this is the mapping made in `new`, unmapped once; its owner has no pointers left.
        unsafe { libc::munmap(self.mapped.0, self.mapped.1) };
    }
}

/// Types of which any bytes are a value.
///
/// # Safety
///
/// No padding, no invalid bit pattern, alignment of at most [`ALIGNMENT`].
pub unsafe trait Plain: Copy {}
// SAFETY: any 16 bits are a bf16.
unsafe impl Plain for half::bf16 {}
// SAFETY: any 32 bits are one.
unsafe impl Plain for f32 {}
// SAFETY: any 32 bits are one.
unsafe impl Plain for u32 {}
// SAFETY: any 8 bits are one.
unsafe impl Plain for u8 {}

/// Machine code, readable and executable, never writable again.
pub(super) struct Code {
    start: *mut c_void,
    length: usize,
    bytes: usize,
}

// SAFETY: the pages are immutable from the end of `Code::new` to the drop.
unsafe impl Send for Code {}
// SAFETY: as above.
unsafe impl Sync for Code {}

impl Code {
    /// Copy `code` to pages of its own, check that the copy hashes to `blake3`, forbid writing,
    /// allow running.
    ///
    /// Refuses what the system refuses.
    ///
    /// # Panics
    ///
    /// When the copy has another hash: `Artifact::open` has checked the original.
    pub fn new(code: &[u8], blake3: &str) -> Result<Self, DeviceError> {
        let length = code.len().max(1).next_multiple_of(PAGE_BYTES);
        let bytes = code.len();
        let refuse = |because| DeviceError::Memory { what: "code", bytes: bytes as u64, because };
        let start = map(length).map_err(|error| refuse(plain(&error)))?;
        let this = Self { start, length, bytes };
        // SAFETY: the mapping is at least `code.len()` bytes, writable and new, so not `code`.
        let copy = unsafe {
            ptr::copy_nonoverlapping(code.as_ptr(), start.cast::<u8>(), code.len());
            std::slice::from_raw_parts(start.cast::<u8>(), code.len())
        };
        let hash = blake3::hash(copy);
        assert_eq!(hash.to_hex().as_str(), blake3, "broken invariant `code.copied`");
        // SAFETY: exactly the pages mapped above; from here on they are only read and run.
        let result = unsafe { libc::mprotect(start, length, libc::PROT_READ | libc::PROT_EXEC) };
        if result != 0 {
            let because = plain(&io::Error::last_os_error());
            return Err(DeviceError::Executable { because });
        }
        Ok(this)
    }

    /// Address of the byte at `offset`.
    ///
    /// # Panics
    ///
    /// When that is beyond the end; `Plan::verify_inside` has refused such a kernel.
    pub fn at(&self, offset: u64) -> *const u8 {
        let offset = usize::try_from(offset).expect("broken invariant `code.inside`: offset");
        assert!(offset < self.bytes, "broken invariant `code.inside`: {offset} of {}", self.bytes);
        // SAFETY: inside the mapping by the assertion.
        unsafe { self.start.cast::<u8>().add(offset) }
    }
}

impl Drop for Code {
    fn drop(&mut self) {
        // SAFETY: the mapping made in `new`, unmapped once, when no thread runs in it any more.
        unsafe { libc::munmap(self.start, self.length) };
    }
}

/// `length` zeroed bytes, private to the process.
fn map(length: usize) -> io::Result<*mut c_void> {
    // SAFETY: an anonymous mapping at an address of the system's choice touches nothing there is.
    let start = unsafe {
        libc::mmap(
            ptr::null_mut(),
            length,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
            -1,
            0,
        )
    };
    if start == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(start) }
}

/// The system's words without their number.
pub(in crate::device) fn plain(error: &io::Error) -> String {
    error.to_string().split(" (os error").next().unwrap_or_default().to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_zeroed_and_aligned_whatever_its_size() {
        for bytes in [0, 1, 4096, 5000, 2 << 20, (6 << 20) + 3] {
            let memory = Memory::new("a test", bytes).unwrap();
            assert!(memory.start().addr().is_multiple_of(ALIGNMENT as usize));
            // SAFETY: nobody else knows of this memory.
            let words = unsafe { memory.values::<u32>() };
            assert_eq!(words.len() as u64, bytes / 4);
            assert!(words.iter().all(|word| *word == 0));
        }
    }

    #[test]
    fn what_the_system_cannot_give_is_refused_with_its_size() {
        let error = Memory::new("the arena", 1 << 60).err().unwrap();
        assert!(matches!(error, DeviceError::Memory { what: "the arena", .. }), "{error}");
    }

    #[test]
    fn code_runs_where_it_was_copied_to() {
        // mov eax, edi; add eax, 1; ret
        let bytes = [0x89, 0xf8, 0x83, 0xc0, 0x01, 0xc3];
        let code = Code::new(&bytes, blake3::hash(&bytes).to_hex().as_str()).unwrap();
        // SAFETY: the six bytes are a System V function of one 32-bit integer.
        let add_one: extern "C" fn(u32) -> u32 = unsafe { std::mem::transmute(code.at(0)) };
        assert_eq!(add_one(41), 42);
    }
}
