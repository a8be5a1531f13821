//! Rules of this module, in virtual time.
