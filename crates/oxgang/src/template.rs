//! The template process: single-threaded, warmed up once, forked for each new worker.
//!
//! Forking a large or threaded owner is slow and unsafe, and starting an interpreter anew is
//! slower still. So the owner starts one template, early; it imports what workers will need,
//! and from then on a worker costs one fork of a small process.
//!
//! # Messages
//!
//! | from | first byte | then | descriptors |
//! |---|---|---|---|
//! | owner | `L` | – | the lifeline's end to hold |
//! | owner | `C` | – | a further link, for another pool |
//! | owner | `P` | text that the language above understands: what to warm up | – |
//! | owner | `S` | incarnation | channel, pool, wake |
//! | owner | `X` | – | whatever the process needs: a process that is no worker, the only one of its link |
//! | template | `s` | incarnation, pid | pidfd |
//! | template | `r` | incarnation, reason | – |
//! | template | `e` | incarnation, whether a signal, its number or the status | – |
//!
//! The template reaps its children, and only after it has sent the pidfd: so neither side
//! ever acts on a process number that may have been given to another. If the owner ends, the
//! lifeline ends the template and every worker; if the template ends, the owner sees its link
//! close and starts another when it needs one.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};

use oxgang_os::event::wait_readable;
use oxgang_os::link::{Link, Message};
use oxgang_os::process::{Exit, Process, Room};
use oxgang_os::{Result, process};

use crate::starter::{Invitation, Invited, Notice, Starter};
use crate::supervisor::Incarnation;

fn numbers(first: u8, numbers: &[u64]) -> Vec<u8> {
    let mut bytes = vec![first];
    bytes.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
    bytes
}

fn number(bytes: &[u8], index: usize) -> Option<u64> {
    let from = 1 + index * 8;
    bytes.get(from..from + 8)?.try_into().ok().map(u64::from_le_bytes)
}

/// The owner's handle of its template.
#[derive(Debug)]
pub struct Template {
    process: Process,
    link: Mutex<Link>,
}

impl Template {
    /// Starts the program that is to be the template, and lets it hold the lifeline.
    ///
    /// `first` is a text, uninterpreted: how the program finds its feet. It comes before the first
    /// message, as [`Link::send_text`] has it.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start(
        program: &std::ffi::OsStr,
        arguments: &[std::ffi::OsString],
        first: &[u8],
        lifeline: BorrowedFd<'_>,
    ) -> Result<Self> {
        let (process, link) = process::spawn(program, arguments)?;
        let met = link.send_text(first).and_then(|()| link.send(b"L", &[lifeline]));
        let template = Self { process, link: Mutex::new(link) };
        // nothing else would: it may not hold the lifeline yet, and is this process's to reap
        met.or_else(|error| template.end().and(Err(error)))?;
        Ok(template)
    }

    /// Whether it is still there.
    #[must_use]
    pub fn alive(&self) -> bool {
        !self.process.ended()
    }

    /// Its process number.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.process.pid
    }

    /// Tells it what to warm up.
    ///
    /// # Errors
    /// If it is gone.
    pub fn prepare(&self, what: &[u8]) -> Result<()> {
        let mut bytes = vec![b'P'];
        bytes.extend_from_slice(what);
        self.link.lock().unwrap_or_else(PoisonError::into_inner).send(&bytes, &[])
    }

    /// A further link, for one pool.
    fn connect(&self) -> Result<Arc<Link>> {
        let (ours, theirs) = Link::pair()?;
        let link = self.link.lock().unwrap_or_else(PoisonError::into_inner);
        link.send(b"C", &[theirs.as_fd()])?;
        Ok(Arc::new(ours))
    }

    /// Asks for a process that is no worker, which gets these descriptors. What becomes of it is
    /// told by the link: see [`Child`](crate::child::Child).
    ///
    /// # Errors
    /// If it is gone, or there are too many descriptors.
    pub fn fork(&self, fds: &[BorrowedFd<'_>]) -> Result<Arc<Link>> {
        let link = self.connect()?;
        link.send(&numbers(b'X', &[0]), fds)?;
        Ok(link)
    }

    /// Ends it and waits for that.
    ///
    /// # Errors
    /// As the kernel says.
    pub fn end(&self) -> Result<()> {
        self.process.kill()?;
        wait_readable(&[self.process.as_fd()], None)?;
        let _status = self.process.exit(true);
        Ok(())
    }
}

impl Drop for Template {
    fn drop(&mut self) {
        // one that has ended leaves no zombie; in a fork of the owner it is nobody's child
        let _status = self.process.exit(true);
    }
}

/// Gives the template of the moment, started anew if the last one has ended.
pub type Renew = Box<dyn Fn() -> Result<Arc<Template>> + Send + Sync>;

/// A pool's start method by the program's template. The template may end at any time (out of
/// memory, say): the workers that it has forked live on, and the next one comes from another.
pub struct TemplateStarter {
    renew: Renew,
    current: Mutex<Option<Connection>>,
    /// Notices of templates that have been replaced.
    kept: Mutex<Vec<Notice>>,
}

/// A pool's dealings with one template.
struct Connection {
    template: Arc<Template>,
    link: Arc<Link>,
    /// Starts that it was asked for and has not told of.
    waiting: Vec<Incarnation>,
    /// For the handles of these, as far as there was room: who cannot be watched must not be
    /// given work, and has it when that shows.
    rooms: Vec<Room>,
    /// Processes that it will tell the end of.
    children: Vec<(Incarnation, i32)>,
}

impl Connection {
    fn hear(&mut self, notice: &Notice) {
        match notice {
            Notice::Started(one, process) => {
                self.waiting.retain(|waiting| waiting != one);
                self.children.push((*one, process.pid));
            }
            Notice::Refused(one, _) => self.waiting.retain(|waiting| waiting != one),
            Notice::Ended(one, _) => self.children.retain(|(child, _)| child != one),
            Notice::Lost(..) => {}
        }
    }

    /// What has come by now; `true`: and nothing more will.
    fn receive(&mut self, notices: &mut Vec<Notice>) -> bool {
        loop {
            drop(self.rooms.pop());
            let received = self.link.receive(true);
            match received {
                Ok(Some(message)) => {
                    if let Some(notice) = notice(message) {
                        self.hear(&notice);
                        notices.push(notice);
                    }
                    self.keep_rooms();
                }
                Ok(None) => return true,
                Err(error) => {
                    self.keep_rooms();
                    return error.kind() != std::io::ErrorKind::WouldBlock;
                }
            }
        }
    }

    /// Takes the room again that was let go of for a handle that did not come.
    fn keep_rooms(&mut self) {
        while self.rooms.len() < self.waiting.len() {
            let Ok(room) = Room::take(self.link.as_fd()) else { return };
            self.rooms.push(room);
        }
        self.rooms.truncate(self.waiting.len());
    }

    fn lost(self) -> Notice {
        Notice::Lost(self.waiting, "the template process has ended".to_owned())
    }
}

impl TemplateStarter {
    /// By whatever template `renew` gives when one is needed.
    #[must_use]
    pub fn new(renew: Renew) -> Self {
        Self { renew, current: Mutex::new(None), kept: Mutex::default() }
    }

    fn current(&self) -> std::sync::MutexGuard<'_, Option<Connection>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Vec<Notice>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the dealings with a template that is of no use any more, keeping what it has told.
    fn part(&self, parted: Option<Connection>) {
        if let Some(mut parted) = parted {
            let mut notices = Vec::new();
            parted.receive(&mut notices);
            notices.push(parted.lost());
            self.kept().extend(notices);
        }
    }

    fn link(&self) -> Result<Arc<Link>> {
        if let Some(now) = &*self.current()
            && now.template.alive()
        {
            return Ok(now.link.clone());
        }
        // called out without the lock, so another thread may do the same at this moment
        let mut template = (self.renew)()?;
        let link = template.connect().or_else(|_| {
            // it is about to end
            template.end()?;
            template = (self.renew)()?;
            template.connect()
        })?;
        let mut current = self.current();
        if let Some(now) = &*current
            && now.template.alive()
        {
            return Ok(now.link.clone()); // it was faster, and may have asked already
        }
        let (waiting, rooms, children) = (Vec::new(), Vec::new(), Vec::new());
        let new = Connection { template, link: link.clone(), waiting, rooms, children };
        let parted = current.replace(new);
        drop(current);
        self.part(parted);
        Ok(link)
    }

    /// Asks the template of the moment for a worker; `false` if it is gone, or about to go.
    fn ask(&self, invitation: &Invitation<'_>) -> Result<bool> {
        let link = self.link()?;
        let one = invitation.incarnation;
        match &mut *self.current() {
            // before it is asked, since it may answer at once
            Some(now) if Arc::ptr_eq(&now.link, &link) => {
                now.rooms.push(Room::take(link.as_fd())?);
                now.waiting.push(one);
            }
            _ => return Ok(false),
        }
        let fds = [invitation.channel, invitation.pool, invitation.wake];
        let sent = link.send(&numbers(b'S', &[one]), &fds);
        if sent.is_err() {
            let mut current = self.current();
            let mut parted = current.take_if(|now| Arc::ptr_eq(&now.link, &link));
            drop(current);
            // links close before a process has ended; nobody shall take it for alive meanwhile
            let ended = parted.as_mut().map_or(Ok(()), |parted| {
                parted.waiting.retain(|waiting| *waiting != one);
                parted.template.end()
            });
            self.part(parted);
            ended?;
        }
        Ok(sent.is_ok())
    }
}

impl Starter for TemplateStarter {
    fn start(&self, invitation: Invitation<'_>) -> Result<Option<Process>> {
        // one template may end at this moment; a second one that does so has a reason to
        if self.ask(&invitation)? || self.ask(&invitation)? {
            return Ok(None);
        }
        Err(std::io::Error::other("the template process has ended"))
    }

    fn notice_link(&self) -> Option<Arc<Link>> {
        self.current().as_ref().map(|now| now.link.clone())
    }

    fn notices(&self) -> Vec<Notice> {
        let mut notices = std::mem::take(&mut *self.kept());
        let mut current = self.current();
        // a link that has closed stays readable for ever: it is told of once
        if current.as_mut().is_some_and(|now| now.receive(&mut notices)) {
            notices.extend(current.take().map(Connection::lost));
        }
        notices
    }

    fn exit(&self, process: &Process) -> Option<Exit> {
        // the template that forked it reaps it and tells; without that one nobody can
        let told = |now: &Connection| now.children.iter().any(|(_, pid)| *pid == process.pid);
        (!self.current().as_ref().is_some_and(told)).then_some(Exit::Unknown)
    }
}

/// What it means if a message has arrived without what was sent along.
const NO_DESCRIPTOR: &str = "a worker's descriptors did not arrive: too many open files";

pub(crate) fn notice(message: Message) -> Option<Notice> {
    let bytes = &message.bytes;
    let one = number(bytes, 0)?;
    match bytes[0] {
        b's' => {
            let pid = i32::try_from(number(bytes, 1)?).ok()?;
            Some(match message.fds.into_iter().next() {
                Some(fd) => Notice::Started(one, Process::adopt(pid, fd)),
                None => Notice::Refused(one, NO_DESCRIPTOR.to_owned()),
            })
        }
        b'r' => Some(Notice::Refused(one, String::from_utf8_lossy(&bytes[9..]).into_owned())),
        b'e' => {
            let value = i32::try_from(number(bytes, 2)?).ok()?;
            let exit = if number(bytes, 1)? == 1 { Exit::Signal(value) } else { Exit::Code(value) };
            Some(Notice::Ended(one, exit))
        }
        _ => None,
    }
}

/// What the template's program has to do next.
#[derive(Debug)]
pub enum Order {
    /// Fork; the child takes up the invitation, the parent reports by
    /// [`Server::started`] or [`Server::refused`].
    Fork(Invited, usize),
    /// Fork a process that is no worker, which these are for; report as for a worker, of
    /// incarnation 0.
    Process(Vec<OwnedFd>, usize),
    /// Warm this up.
    Prepare(Vec<u8>),
    /// The owner is gone.
    End,
}

/// The template's own side.
#[derive(Debug)]
pub struct Server {
    links: Vec<Option<Link>>,
    children: Vec<(usize, Incarnation, Process)>,
    /// For the handle of the next child.
    room: Option<Room>,
    /// The owner's line, and this process's own hold of it.
    lifeline: Option<(OwnedFd, OwnedFd)>,
}

impl Server {
    /// With the link that is the program's standard input.
    #[must_use]
    pub fn new(link: Link) -> Self {
        Self { links: vec![Some(link)], children: Vec::new(), room: None, lifeline: None }
    }

    /// Waits for the next order, reaping children meanwhile.
    ///
    /// # Errors
    /// If waiting fails.
    pub fn next_order(&mut self) -> Result<Order> {
        loop {
            let mut fds: Vec<BorrowedFd<'_>> = Vec::new();
            fds.extend(self.links.iter().flatten().map(AsFd::as_fd));
            let links = fds.len();
            fds.extend(self.children.iter().map(|(_, _, process)| process.as_fd()));
            let ready = wait_readable(&fds, None)?;
            let open: Vec<usize> =
                (0..self.links.len()).filter(|&i| self.links[i].is_some()).collect();
            let ended: Vec<bool> = ready[links..].to_vec();
            self.reap(&ended);
            for (index, _) in open.into_iter().zip(ready).filter(|(_, ready)| *ready) {
                if let Some(order) = self.read(index)? {
                    return Ok(order);
                }
            }
        }
    }

    fn read(&mut self, index: usize) -> Result<Option<Order>> {
        let Some(link) = &self.links[index] else { return Ok(None) };
        let message = match link.receive(true) {
            Ok(message) => message,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Ok(None),
            Err(error) => return Err(error),
        };
        let Some(mut message) = message else {
            self.links[index] = None; // that pool is over; the first link is the owner itself
            return Ok((index == 0).then_some(Order::End));
        };
        match message.bytes.first() {
            Some(b'L') => {
                // nothing may be started that would not end with the owner
                let Some(line) = message.fds.pop() else { return Ok(Some(Order::End)) };
                match process::hold(line.as_fd()) {
                    Ok(held) => self.lifeline = Some((line, held)),
                    Err(_) => return Ok(Some(Order::End)),
                }
                Ok(None)
            }
            Some(b'C') => {
                if let Some(fd) = message.fds.pop() {
                    self.keep(Link::adopt(fd));
                }
                Ok(None)
            }
            Some(b'P') => Ok(Some(Order::Prepare(message.bytes[1..].to_vec()))),
            Some(b'X') => {
                self.room = self.links[index].as_ref().and_then(|l| Room::take(l.as_fd()).ok());
                if self.room.is_some() && !message.fds.is_empty() {
                    return Ok(Some(Order::Process(message.fds, index)));
                }
                self.refused(index, 0, NO_DESCRIPTOR);
                Ok(None)
            }
            Some(b'S') => {
                let one = number(&message.bytes, 0);
                message.bytes.remove(0);
                let invited = Invited::from_message(message);
                self.room = self.links[index].as_ref().and_then(|l| Room::take(l.as_fd()).ok());
                match (invited, one) {
                    (Ok(invited), _) if self.room.is_some() => {
                        Ok(Some(Order::Fork(invited, index)))
                    }
                    (_, Some(one)) => {
                        self.refused(index, one, NO_DESCRIPTOR);
                        Ok(None)
                    }
                    (Err(error), None) => Err(error),
                    (Ok(_), None) => Ok(None), // from nobody that could be told
                }
            }
            _ => Ok(None),
        }
    }

    /// A place for the link: of one that is gone and that no child is to be told of, or a new one.
    fn keep(&mut self, link: Link) {
        let children = &self.children;
        let free = |i: &usize| children.iter().all(|(index, ..)| index != i);
        let place = (1..self.links.len()).filter(|i| self.links[*i].is_none()).find(free);
        match place {
            Some(place) => self.links[place] = Some(link),
            None => self.links.push(Some(link)),
        }
    }

    fn reap(&mut self, ended: &[bool]) {
        let mut ended = ended.iter();
        let links = &self.links;
        self.children.retain(|(index, one, process)| {
            if !ended.next().copied().unwrap_or(false) {
                return true;
            }
            let exit = process.exit(true).unwrap_or(Exit::Unknown);
            let (signalled, value) = match exit {
                Exit::Signal(signal) => (1, signal),
                Exit::Code(code) => (0, code),
                Exit::Unknown => (0, -1),
            };
            if let Some(link) = &links[*index] {
                let told = numbers(b'e', &[*one, signalled, value as u32 as u64]);
                // a pool that is gone needs no telling
                let _gone = link.send(&told, &[]);
            }
            false
        });
    }

    /// Parent, after the fork: the child has this number. It has not been reaped. If there is no
    /// handle to be had for it, it is ended again, and that is a refusal.
    ///
    /// # Errors
    /// If it is no child.
    pub fn started(&mut self, index: usize, one: Incarnation, pid: i32) -> Result<()> {
        self.room = None;
        let child = match Process::open(pid) {
            Ok(child) => child,
            Err(error) => {
                process::end_child(pid)?;
                self.refused(index, one, &error.to_string());
                return Ok(());
            }
        };
        if let Some(link) = &self.links[index] {
            let told = numbers(b's', &[one, pid as u64]);
            let _gone = link.send(&told, &[child.as_fd()]);
        }
        self.children.push((index, one, child));
        Ok(())
    }

    /// The fork failed.
    pub fn refused(&self, index: usize, one: Incarnation, why: &str) {
        if let Some(link) = &self.links[index] {
            let mut told = numbers(b'r', &[one]);
            told.extend_from_slice(why.as_bytes());
            let _gone = link.send(&told, &[]);
        }
    }

    /// Child, after the fork: lets go of everything of the template, and holds the lifeline
    /// for itself. Keep what is returned.
    ///
    /// # Errors
    /// If the owner has ended meanwhile.
    pub fn leave(self) -> Result<Option<OwnedFd>> {
        self.lifeline.as_ref().map(|(line, _)| process::hold(line.as_fd())).transpose()
    }
}
