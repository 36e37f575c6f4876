// SPDX-License-Identifier: GPL-2.0
//! libyaml's events, each with its place.
//!
//! serde_yaml tells no places but those of its own errors, and parsers in safe Rust refuse
//! what people write and libyaml takes, such as a closing bracket at the indent of its key.

use std::ffi::CStr;
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::os::raw::c_char;

use libyaml as sys;

use super::node::At;

pub enum Event {
    StreamEnd,
    DocumentStart,
    DocumentEnd,
    Alias(String),
    Scalar {
        head: Head,
        text: String,
        /// Not in quotes and not a block: it may be a number.
        plain: bool,
    },
    ListStart(Head),
    ListEnd,
    MapStart(Head),
    MapEnd,
}

/// What may stand before a value.
pub struct Head {
    pub anchor: Option<String>,
    pub tag: Option<String>,
}

pub struct Events<'t> {
    // Boxed: libyaml keeps pointers into its own structure.
    parser: Box<sys::yaml_parser_t>,
    text: PhantomData<&'t str>,
}

impl<'t> Events<'t> {
    /// `None`: no memory.
    pub fn new(text: &'t str) -> Option<Self> {
        let mut parser = Box::new(MaybeUninit::<sys::yaml_parser_t>::zeroed());
        // SAFETY: the pointer is valid for writes, and initialised by the first call.  The text
        // outlives the parser: `Events` carries its lifetime.
        unsafe {
            let pointer = parser.as_mut_ptr();
            if sys::yaml_parser_initialize(pointer).fail {
                return None;
            }
            sys::yaml_parser_set_encoding(pointer, sys::YAML_UTF8_ENCODING);
            sys::yaml_parser_set_input_string(pointer, text.as_ptr(), text.len() as u64);
        }
        Some(Events {
            // SAFETY: the box holds an initialised parser, and a MaybeUninit has the layout
            // of its content.
            parser: unsafe { Box::from_raw(Box::into_raw(parser).cast::<sys::yaml_parser_t>()) },
            text: PhantomData,
        })
    }

    /// Not to be called again after an error, or after the end of the stream.
    pub fn next(&mut self) -> Result<(Event, At), (At, String)> {
        loop {
            let mut event = MaybeUninit::<sys::yaml_event_t>::zeroed();
            // SAFETY: the parser is initialised; the event is written before it is read, its
            // pointers are libyaml's and valid until it is deleted.
            let found = unsafe {
                let event = event.as_mut_ptr();
                if sys::yaml_parser_parse(&mut *self.parser, event).fail {
                    return Err(self.error());
                }
                let found = convert(&*event).map(|found| (found, at((*event).start_mark)));
                sys::yaml_event_delete(event);
                found
            };
            if let Some(found) = found {
                return Ok(found);
            }
        }
    }

    fn error(&self) -> (At, String) {
        let parser = &self.parser;
        // SAFETY: libyaml's messages are static strings, or absent.
        let (problem, context) = unsafe { (text_of(parser.problem), text_of(parser.context)) };
        let mut message = problem.unwrap_or_else(|| "cannot be read".to_owned());
        if let Some(context) = context {
            message = format!("{message}, {context}");
        }
        let mark = match parser.problem_mark {
            // Errors of the scanner have the place where they were found, and where what is
            // wrong began; of errors without a place the second is left.
            mark if mark.line == 0 && mark.column == 0 => parser.context_mark,
            mark => mark,
        };
        (at(mark), message)
    }
}

impl Drop for Events<'_> {
    fn drop(&mut self) {
        // SAFETY: initialised in `new`, deleted once.
        unsafe { sys::yaml_parser_delete(&mut *self.parser) }
    }
}

fn at(mark: sys::yaml_mark_t) -> At {
    let one_based = |n: u64| u32::try_from(n).unwrap_or(u32::MAX).saturating_add(1);
    At {
        line: one_based(mark.line),
        column: one_based(mark.column),
    }
}

/// `None` for what says nothing.
///
/// # Safety
///
/// The event is one that libyaml has filled and not deleted.
unsafe fn convert(event: &sys::yaml_event_t) -> Option<Event> {
    // SAFETY: which field of the union is there is told by the type; strings are terminated,
    // and a scalar's bytes are `length` long.
    unsafe {
        Some(match event.type_ {
            sys::YAML_STREAM_END_EVENT => Event::StreamEnd,
            sys::YAML_DOCUMENT_START_EVENT => Event::DocumentStart,
            sys::YAML_DOCUMENT_END_EVENT => Event::DocumentEnd,
            sys::YAML_ALIAS_EVENT => Event::Alias(bytes_of(event.data.alias.anchor)?),
            sys::YAML_SCALAR_EVENT => {
                let scalar = &event.data.scalar;
                let length = usize::try_from(scalar.length).ok()?;
                let bytes = std::slice::from_raw_parts(scalar.value, length);
                Event::Scalar {
                    head: head(scalar.anchor, scalar.tag),
                    text: String::from_utf8_lossy(bytes).into_owned(),
                    plain: scalar.style == sys::YAML_PLAIN_SCALAR_STYLE,
                }
            }
            sys::YAML_SEQUENCE_START_EVENT => {
                let start = &event.data.sequence_start;
                Event::ListStart(head(start.anchor, start.tag))
            }
            sys::YAML_SEQUENCE_END_EVENT => Event::ListEnd,
            sys::YAML_MAPPING_START_EVENT => {
                let start = &event.data.mapping_start;
                Event::MapStart(head(start.anchor, start.tag))
            }
            sys::YAML_MAPPING_END_EVENT => Event::MapEnd,
            _ => return None,
        })
    }
}

/// # Safety
///
/// Each is null, or a terminated string.
unsafe fn head(anchor: *const u8, tag: *const u8) -> Head {
    // SAFETY: as the caller says.
    unsafe {
        Head {
            anchor: bytes_of(anchor),
            tag: bytes_of(tag),
        }
    }
}

/// # Safety
///
/// Null, or a terminated string.
unsafe fn bytes_of(text: *const u8) -> Option<String> {
    // SAFETY: as the caller says.
    unsafe { text_of(text.cast()) }
}

/// # Safety
///
/// Null, or a terminated string.
unsafe fn text_of(text: *const c_char) -> Option<String> {
    if text.is_null() {
        return None;
    }
    // SAFETY: not null, and terminated as the caller says.
    let text = unsafe { CStr::from_ptr(text) };
    Some(text.to_string_lossy().into_owned())
}
