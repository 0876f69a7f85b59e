// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a person sees of a run: consumers of [`Event`].

mod lines;
mod table;
mod terminal;

use std::io::{self, IsTerminal};

use crate::event::Event;

pub use lines::{Lines, seconds};
pub use terminal::Terminal;

/// Something that shows events.
pub trait Renderer {
    /// Shows this one, or not.
    fn show(&mut self, event: &Event);
}

/// Shows what happens within a run that is part of a larger whole, which tells beginning and end itself.
pub struct Aside(pub Box<dyn Renderer>);

impl Renderer for Aside {
    fn show(&mut self, event: &Event) {
        match event {
            Event::Planned { .. } | Event::Accelerator { .. } | Event::Reported { .. } => {}
            _ => self.0.show(event),
        }
    }
}

/// What standard output is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// For the person: progress, table, lines.
    Person,
    /// For a program, which gets JSON; the person gets lines on standard error.
    Program,
}

impl Output {
    /// What it is for, if JSON was asked for or not.
    #[must_use]
    pub fn of(json: bool) -> Self {
        if json { Self::Program } else { Self::Person }
    }
}

/// The renderer for what happens before a program has standard output to itself.
#[must_use]
pub fn beside_output() -> Box<dyn Renderer> {
    choose(Output::of(!io::stdout().is_terminal()))
}

/// The renderer that fits: live on a terminal, else plain lines.
#[must_use]
pub fn choose(output: Output) -> Box<dyn Renderer> {
    match output {
        Output::Program => Box::new(Lines::new(io::stderr())),
        Output::Person if io::stdout().is_terminal() && io::stderr().is_terminal() => {
            Box::new(Terminal::new())
        }
        Output::Person => Box::new(Lines::new(io::stdout())),
    }
}
