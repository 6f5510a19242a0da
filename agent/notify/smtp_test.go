package notify_test

import (
	"bufio"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"io"
	"mime"
	"mime/quotedprintable"
	"net"
	"net/mail"
	"strings"
	"testing"
	"time"

	"github.com/cofferbackup/coffer/agent/config"
	"github.com/cofferbackup/coffer/agent/notify"
	"github.com/cofferbackup/coffer/agent/notify/message"
)

// mailServer speaks SMTP (RFC 5321) with STARTTLS and AUTH, and holds its client to
// the order of the commands.
type mailServer struct {
	offers   string // extensions, joined by " ", "_" standing for a blank: "STARTTLS AUTH_PLAIN_LOGIN"
	password string // "": no log in is asked for
	refuses  string // a recipient
	tls      *tls.Config
	mails    chan received
}

type received struct {
	from    string
	to      []string
	user    string
	secured bool
	text    string
}

// listen starts the server and returns its address.
func (s *mailServer) listen(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	s.mails = make(chan received, 100)
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go s.serve(t, conn)
		}
	}()
	return l.Addr().String()
}

// serve talks to one client.
func (s *mailServer) serve(t *testing.T, conn net.Conn) {
	defer func() { conn.Close() }()
	in := bufio.NewReader(conn)
	say := func(format string, args ...any) { fmt.Fprintf(conn, format+"\r\n", args...) }
	line := func() (string, bool) {
		text, err := in.ReadString('\n')
		if err == nil && !strings.HasSuffix(text, "\r\n") {
			t.Errorf("line %q does not end with CR LF", text)
		}
		return strings.TrimSuffix(text, "\r\n"), err == nil
	}
	say("220 test")
	var m received
	for {
		text, ok := line()
		if !ok {
			return
		}
		verb, rest, _ := strings.Cut(text, " ")
		switch strings.ToUpper(verb) {
		case "EHLO":
			m = received{secured: m.secured, user: m.user}
			say("250-test")
			for e := range strings.FieldsSeq(s.offers) {
				if e != "STARTTLS" || !m.secured {
					say("250-%s", strings.ReplaceAll(e, "_", " "))
				}
			}
			say("250 OK")
		case "STARTTLS":
			say("220 go on")
			secured := tls.Server(conn, s.tls)
			if secured.Handshake() != nil {
				return
			}
			conn, in, m = secured, bufio.NewReader(secured), received{secured: true}
		case "AUTH":
			user, password, ok := s.logIn(rest, say, line)
			if !ok || password != s.password {
				say("535 no")
				continue
			}
			m.user = user
			say("235 welcome")
		case "MAIL":
			if s.password != "" && m.user == "" {
				say("530 log in first")
				continue
			}
			m.from = rest
			say("250 OK")
		case "RCPT":
			if s.refuses != "" && strings.Contains(rest, s.refuses) {
				say("550 nobody of that name")
				continue
			}
			m.to = append(m.to, rest)
			say("250 OK")
		case "DATA":
			say("354 go on")
			for {
				text, ok := line()
				if !ok {
					return
				}
				if text == "." {
					break
				}
				if len(text) > 998 {
					t.Errorf("a line of %d bytes", len(text))
				}
				m.text += strings.TrimPrefix(text, ".") + "\r\n"
			}
			say("250 queued")
			s.mails <- m
		case "NOOP":
			say("250 OK")
		case "QUIT":
			say("221 bye")
			return
		default:
			say("502 what?")
		}
	}
}

func (s *mailServer) logIn(rest string, say func(string, ...any), line func() (string, bool)) (user, password string, ok bool) {
	decode := func(text string) string {
		raw, _ := base64.StdEncoding.DecodeString(text)
		return string(raw)
	}
	way, initial, _ := strings.Cut(rest, " ")
	switch way {
	case "PLAIN":
		parts := strings.Split(decode(initial), "\x00")
		if len(parts) != 3 {
			return "", "", false
		}
		return parts[1], parts[2], true
	case "LOGIN":
		say("334 %s", base64.StdEncoding.EncodeToString([]byte("Username:")))
		u, _ := line()
		say("334 %s", base64.StdEncoding.EncodeToString([]byte("Password:")))
		p, ok := line()
		return decode(u), decode(p), ok
	}
	return "", "", false
}

// certified is the TLS of a server for 127.0.0.1, and the file of its authority.
func certified(t *testing.T) (*tls.Config, string) {
	t.Helper()
	server, ca, _ := serve(t, nil)
	return &tls.Config{Certificates: server.TLS.Certificates}, ca
}

// TestMail: a mail over STARTTLS with each way to log in, and what is in it.
func TestMail(t *testing.T) {
	secure, ca := certified(t)
	for _, offers := range []string{"STARTTLS AUTH_PLAIN_LOGIN 8BITMIME", "STARTTLS AUTH_LOGIN"} {
		s := &mailServer{offers: offers, password: "hunter2", tls: secure}
		b := newBench(t)
		b.use(map[string]config.Notify{"mail": {Subject: "{{.Subject}}\r\nBcc: evil@example.org", Body: "{{.Message}}\n.\nQUIT\n{{.Next}}",
			SMTP: &config.SMTP{Server: s.listen(t), From: "Coffer <coffer@example.org>", To: []string{"ops@example.org", "Zoë <zoe@example.org>"},
				User: "coffer", PasswordSource: "file:" + secretFile(t, "hunter2"), CA: ca}}})
		b.start()
		b.Report(notify.Report{About: "a", Notice: message.Notice{Kind: message.Alarm, Subject: "Tresor Zürich", Message: strings.Repeat("ä=", 1000), Next: "look"}})
		m := <-s.mails
		if !m.secured || m.user != "coffer" || !strings.HasPrefix(m.from, "FROM:<coffer@example.org>") || len(m.to) != 2 {
			t.Errorf("%+v", m)
		}
		parsed, err := mail.ReadMessage(strings.NewReader(m.text))
		if err != nil {
			t.Fatal(err)
		}
		subject, err := new(mime.WordDecoder).DecodeHeader(parsed.Header.Get("Subject"))
		if err != nil || subject != "Tresor Zürich Bcc: evil@example.org" || parsed.Header.Get("Bcc") != "" {
			t.Errorf("subject %q, %v", subject, err)
		}
		if to, err := parsed.Header.AddressList("To"); err != nil || len(to) != 2 || to[1].Name != "Zoë" {
			t.Errorf("to %v, %v", to, err)
		}
		if at, err := parsed.Header.Date(); err != nil || !at.Equal(b.clock.Now()) || parsed.Header.Get("Auto-Submitted") != "auto-generated" {
			t.Errorf("%v, %v", parsed.Header, err)
		}
		body, err := io.ReadAll(quotedprintable.NewReader(parsed.Body))
		if want := strings.Repeat("ä=", 1000) + "\r\n.\r\nQUIT\r\nlook"; err != nil || strings.TrimRight(string(body), "\r\n") != want {
			t.Errorf("body of %d bytes, %v", len(body), err)
		}
	}
}

// TestMailRefuses: no password and no mail goes where it was not meant to go.
func TestMailRefuses(t *testing.T) {
	secure, ca := certified(t)
	for name, test := range map[string]struct {
		server mailServer
		host   string // instead of 127.0.0.1
		ca     string
		pass   string
		fault  string
	}{
		"wrong password":     {mailServer{offers: "STARTTLS AUTH_PLAIN", password: "right", tls: secure}, "", ca, "hunter2", "535"},
		"untrusted":          {mailServer{offers: "STARTTLS AUTH_PLAIN", password: "hunter2", tls: secure}, "", "", "hunter2", "certificate"},
		"no such way":        {mailServer{offers: "STARTTLS", password: "hunter2", tls: secure}, "", ca, "hunter2", "knows no AUTH"},
		"nobody":             {mailServer{offers: "STARTTLS", tls: secure, refuses: "ops@"}, "", ca, "", "nobody of that name"},
		"secret that is not": {mailServer{offers: "STARTTLS", tls: secure}, "", ca, "gone", "no such file"},
		"plain elsewhere":    {mailServer{offers: "AUTH_PLAIN_LOGIN", password: "hunter2"}, "elsewhere", ca, "hunter2", ""},
	} {
		t.Run(name, func(t *testing.T) {
			address := test.server.listen(t)
			if test.host != "" {
				if other := elsewhere(t); other != "" {
					_, port, _ := net.SplitHostPort(address)
					address, test.fault = net.JoinHostPort(other, port), "offers no TLS"
					test.server.relay(t, address)
				} else {
					t.Skip("this machine has no address but loopback")
				}
			}
			cfg := &config.SMTP{Server: address, From: "coffer@example.org", To: []string{"ops@example.org"}, CA: test.ca}
			if test.pass != "" {
				cfg.User, cfg.PasswordSource = "coffer", "file:"+secretFile(t, test.pass)
				if test.pass == "gone" {
					cfg.PasswordSource += "-gone"
				}
			}
			b := newBench(t)
			b.use(map[string]config.Notify{"mail": {SMTP: cfg}})
			b.start()
			b.fail("etc", notify.Again)
			b.until(func() bool { return b.channel("mail").Error != "" })
			said := b.channel("mail").Error
			b.stop()
			if !strings.Contains(said, test.fault) || strings.Contains(said+b.log.String(), "hunter2") {
				t.Errorf("%q, want %q; log %s", said, test.fault, b.log)
			}
			if len(test.server.mails) > 0 {
				t.Errorf("it got %+v", <-test.server.mails)
			}
		})
	}
}

// elsewhere is an address of this machine that is not loopback.
func elsewhere(t *testing.T) string {
	t.Helper()
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok && !n.IP.IsLoopback() && n.IP.To4() != nil {
			return n.IP.String()
		}
	}
	return ""
}

// relay has the server answer on another address too.
func (s *mailServer) relay(t *testing.T, address string) {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go s.serve(t, conn)
		}
	}()
}

// TestMailHere: the server of this machine needs no TLS, and the doctor's look sends
// nothing.
func TestMailHere(t *testing.T) {
	s := &mailServer{offers: "8BITMIME"}
	b := newBench(t)
	cfg := config.Notify{SMTP: &config.SMTP{Server: s.listen(t), From: "coffer@example.org", To: []string{"root@example.org"}}}
	b.use(map[string]config.Notify{"mail": cfg})
	b.start()
	if err := b.Check(t.Context(), cfg); err != nil || len(s.mails) > 0 {
		t.Errorf("%v, %d mails", err, len(s.mails))
	}
	b.fail("etc", notify.Again)
	if m := <-s.mails; m.secured || !strings.Contains(m.text, "Subject: [coffer web1] etc\r\n") || !strings.Contains(m.text, "etc: it failed\r\n") {
		t.Errorf("%+v", m)
	}
	for _, broken := range []config.SMTP{{Server: "127.0.0.1:1", From: "a@b", To: []string{"c@d"}}, {Server: "x", From: "a@b", To: []string{"c@d"}},
		{Server: "127.0.0.1:25", From: "nobody", To: []string{"c@d"}}, {Server: "127.0.0.1:25", From: "a@b"}} {
		if err := b.Check(t.Context(), config.Notify{SMTP: &broken}); err == nil {
			t.Errorf("%+v is good", broken)
		}
	}
}

// TestHangs: a server that says nothing is left when the agent stops.
func TestHangs(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	b := newBench(t)
	b.use(map[string]config.Notify{"mail": {SMTP: &config.SMTP{Server: l.Addr().String(), From: "a@example.org", To: []string{"b@example.org"}}}})
	b.start()
	b.fail("etc", notify.Again)
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	begun := time.Now()
	b.stop()
	if took := time.Since(begun); took > 10*time.Second {
		t.Errorf("it took %s to stop", took)
	}
	if strings.Contains(b.log.String(), "not told") {
		t.Errorf("to be cut off is a failure: %s", b.log)
	}
	b.start() // and then it is told
	second, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	second.Close()
}
