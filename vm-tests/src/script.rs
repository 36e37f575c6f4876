// SPDX-License-Identifier: GPL-2.0
//! Backends whose every byte is written here: for answers that no real server gives, and for exact logs.

use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::http::{Conn, Message};

/// How long a backend waits for bytes of a client before it takes the connection for dead.
const PATIENCE: Duration = Duration::from_secs(300);

/// A listener that runs one thread for each connection until the scenario's process ends.
pub struct Server {
    pub connections: Arc<AtomicUsize>,
}

impl Server {
    /// `handler` gets each connection and its number, from 0.
    pub fn start(
        address: &str,
        handler: impl Fn(Conn, usize) -> Result<()> + Send + Sync + 'static,
    ) -> Result<Self> {
        let listener = listen(address)?;
        let connections = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&connections);
        let handler = Arc::new(handler);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let number = counter.fetch_add(1, Ordering::SeqCst);
                let handler = Arc::clone(&handler);
                thread::spawn(move || serve_one(&*handler, stream, number));
            }
        });
        Ok(Self { connections })
    }

    /// Connections accepted so far.
    pub fn accepted(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

fn serve_one(
    handler: &(dyn Fn(Conn, usize) -> Result<()> + Send + Sync),
    stream: TcpStream,
    number: usize,
) {
    // A client that went away is the scenario's matter, and it looks at its own side.
    let _ = Conn::of(stream, PATIENCE).and_then(|conn| handler(conn, number));
}

fn listen(address: &str) -> Result<TcpListener> {
    TcpListener::bind(address).with_context(|| format!("listen on {address}"))
}

/// What answers wait at until the scenario lets them go.
#[derive(Clone, Default)]
pub struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    /// Lets go who waits, and who comes later.
    pub fn open(&self) {
        self.set(true);
    }

    /// Who comes from now on waits.
    pub fn close(&self) {
        self.set(false);
    }

    fn set(&self, open: bool) {
        *self.0 .0.lock().unwrap_or_else(PoisonError::into_inner) = open;
        self.0 .1.notify_all();
    }

    /// Waits while it is closed.
    pub fn pass(&self) {
        let (open, changed) = &*self.0;
        let mut open = open.lock().unwrap_or_else(PoisonError::into_inner);
        while !*open {
            open = changed.wait(open).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// One request, as a [`Logging`] backend saw it.
#[derive(Debug, Clone)]
pub struct Seen {
    pub connection: usize,
    pub message: Message,
}

/// A backend that answers every request with its name, and keeps a log.
#[derive(Clone)]
pub struct Logging {
    pub name: String,
    log: Arc<Mutex<Vec<Seen>>>,
    connections: Arc<AtomicUsize>,
    open: Arc<AtomicUsize>,
    /// For requests whose path ends with `/held`; closed at first.
    pub held: Gate,
}

impl Logging {
    /// Starts one; its name is its address. A request for `/sleep/MS` is answered after so many milliseconds, one that ends
    /// with `/held` when [`Logging::held`] is open, and one for `/answer/NAME:VALUE/..` with these fields.
    pub fn start(address: &str) -> Result<Self> {
        Self::named(address, address)
    }

    pub fn named(address: &str, name: &str) -> Result<Self> {
        let log = Arc::new(Mutex::new(Vec::new()));
        let open = Arc::new(AtomicUsize::new(0));
        let (own_log, own_open, own_name) = (Arc::clone(&log), Arc::clone(&open), name.to_owned());
        let held = Gate::default();
        let own_held = held.clone();
        let server = Server::start(address, move |mut conn, connection| {
            own_open.fetch_add(1, Ordering::SeqCst);
            let result = answer_all(&mut conn, connection, &own_name, &own_log, &own_held);
            own_open.fetch_sub(1, Ordering::SeqCst);
            result
        })?;
        Ok(Self {
            name: name.to_owned(),
            log,
            connections: server.connections,
            open,
            held,
        })
    }

    pub fn requests(&self) -> Vec<Seen> {
        self.log
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub fn count(&self) -> usize {
        self.log
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .len()
    }

    /// Connections accepted so far.
    pub fn accepted(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// Connections open now.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::SeqCst)
    }

    pub fn clear(&self) {
        self.log
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
    }
}

fn answer_all(
    conn: &mut Conn,
    connection: usize,
    name: &str,
    log: &Mutex<Vec<Seen>>,
    held: &Gate,
) -> Result<()> {
    while let Some(message) = conn.request_read()? {
        let delay = message
            .path()
            .strip_prefix("/sleep/")
            .and_then(|ms| ms.parse().ok());
        let is_held = message.path().ends_with("/held");
        let head = message.method() == "HEAD";
        let more: String = message
            .path()
            .strip_prefix("/answer/")
            .into_iter()
            .flat_map(|fields| fields.split('/'))
            .map(|field| format!("{}\r\n", field.replacen(':', ": ", 1)))
            .collect();
        let text = format!("{name}\n{} {}\n", message.method(), message.path());
        log.lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(Seen {
                connection,
                message,
            });
        if let Some(ms) = delay {
            thread::sleep(Duration::from_millis(ms));
        }
        if is_held {
            held.pass();
        }
        let length = text.len();
        conn.send(format!(
            "HTTP/1.1 200 OK\r\n{more}Content-Length: {length}\r\n\r\n{}",
            if head { "" } else { &text }
        ))?;
    }
    Ok(())
}
