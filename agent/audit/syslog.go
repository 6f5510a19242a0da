package audit

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"
)

// patience is how long a message may take. The log waits meanwhile.
const patience = 200 * time.Millisecond

// syslog is a datagram socket.
type syslog struct {
	paths  []string
	prefix string
	conn   net.Conn
}

func newSyslog(paths ...string) *syslog {
	const priority = 10<<3 | 5 // authpriv, notice (RFC 5424, 6.2.1)
	return &syslog{paths: paths, prefix: fmt.Sprintf("<%d>%s[%d]: ", priority, filepath.Base(os.Args[0]), os.Getpid())}
}

// Send implements Sink.
func (s *syslog) Send(line []byte) error {
	if s.conn != nil {
		if s.write(line) == nil {
			return nil
		}
		// The listener was started anew, perhaps: its old socket is dead.
		s.Close()
	}
	if err := s.dial(); err != nil {
		return err
	}
	if err := s.write(line); err != nil {
		s.Close()
		return fmt.Errorf("send to the system's log: %w", err)
	}
	return nil
}

func (s *syslog) write(line []byte) error {
	if err := s.conn.SetWriteDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	_, err := s.conn.Write(append([]byte(s.prefix), line...))
	return err
}

func (s *syslog) dial() error {
	var errs []error
	for _, path := range s.paths {
		conn, err := net.DialTimeout("unixgram", path, patience)
		if err == nil {
			s.conn = conn
			return nil
		}
		errs = append(errs, err)
	}
	return fmt.Errorf("connect to the system's log: %w", errors.Join(errs...))
}

// Close implements io.Closer.
func (s *syslog) Close() error {
	if s.conn == nil {
		return nil
	}
	err := s.conn.Close()
	s.conn = nil
	return err
}
