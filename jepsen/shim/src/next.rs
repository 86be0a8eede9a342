//! The functions that ours stand in front of.

use std::ffi::CStr;
use std::sync::atomic::{AtomicPtr, Ordering};

/// A function of the library behind this one, looked up when it is first needed: other libraries
/// may call before this one is set up.
pub(crate) struct Next {
    name: &'static CStr,
    at: AtomicPtr<libc::c_void>,
}

impl Next {
    pub(crate) const fn new(name: &'static CStr) -> Self {
        Self {
            name,
            at: AtomicPtr::new(std::ptr::null_mut()),
        }
    }

    /// Its address; null if there is none.
    pub(crate) fn address(&self) -> *mut libc::c_void {
        let known = self.at.load(Ordering::Relaxed);
        if !known.is_null() {
            return known;
        }
        // SAFETY: the name is a C string.
        let found = unsafe { libc::dlsym(libc::RTLD_NEXT, self.name.as_ptr()) };
        self.at.store(found, Ordering::Relaxed);
        found
    }
}

/// Defines `$call`, which calls the function of this C name in the library behind this one, and
/// fails with `ENOSYS` if there is none.
macro_rules! next {
    ($call:ident = $name:literal, fn($($arg:ident: $type:ty),*) -> $result:ty, else $none:expr) => {
        pub(crate) unsafe fn $call($($arg: $type),*) -> $result {
            static NEXT: $crate::next::Next = $crate::next::Next::new($name);
            let address = NEXT.address();
            if address.is_null() {
                return $crate::next::fail(libc::ENOSYS, $none);
            }
            // SAFETY: the C library's function of this name has this type.
            unsafe {
                let function: unsafe extern "C" fn($($type),*) -> $result =
                    std::mem::transmute(address);
                function($($arg),*)
            }
        }
    };
}
pub(crate) use next;

/// Sets `errno`, for a function that returns this on failure.
pub(crate) fn fail<T>(error: libc::c_int, result: T) -> T {
    // SAFETY: the address of this thread's errno is valid.
    unsafe { *libc::__errno_location() = error };
    result
}

/// This thread's `errno`.
pub(crate) fn errno() -> libc::c_int {
    // SAFETY: the address of this thread's errno is valid.
    unsafe { *libc::__errno_location() }
}
