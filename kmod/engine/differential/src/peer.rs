// SPDX-License-Identifier: GPL-2.0

//! Another parser: a process that answers one line for each message.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// What a parser made of the first message of some bytes, after which the connection closed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// The message ends at this offset.
    Accepted(usize),
    /// More was needed.
    Partial,
    Refused(String),
}

pub struct Peer {
    pub name: &'static str,
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Peer {
    pub fn start(name: &'static str, command: &str) -> std::io::Result<Peer> {
        let mut words = command.split_whitespace();
        let mut child = Command::new(words.next().unwrap_or_default())
            .args(words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let input = child.stdin.take();
        let output = BufReader::new(child.stdout.take().expect("piped"));
        Ok(Peer {
            name,
            child,
            input,
            output,
        })
    }

    /// `kind` is `q` for a request, `r` for a response to GET, `h` for one to HEAD.
    pub fn ask(&mut self, kind: u8, message: &[u8]) -> std::io::Result<Outcome> {
        let mut frame = vec![kind];
        frame.extend((message.len() as u32).to_be_bytes());
        frame.extend(message);
        let input = self.input.as_mut().expect("open until drop");
        input.write_all(&frame)?;
        input.flush()?;
        let mut line = Vec::new();
        if self.output.read_until(b'\n', &mut line)? == 0 {
            return Err(std::io::Error::other(format!("{} ended", self.name)));
        }
        // Error texts may quote what was sent.
        let line = line.trim_ascii_end().escape_ascii().to_string();
        Ok(match line.split_once(' ') {
            Some(("ok", end)) => Outcome::Accepted(end.parse().map_err(std::io::Error::other)?),
            Some(("err", text)) => Outcome::Refused(text.to_owned()),
            _ if line == "partial" => Outcome::Partial,
            _ => Outcome::Refused(line.to_owned()),
        })
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.input = None;
        let _ = self.child.wait();
    }
}
