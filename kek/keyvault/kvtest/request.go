package kvtest

import (
	"slices"
	"time"
)

// maxRequests is how many requests the log keeps.
const maxRequests = 10_000

// Request is one request that was answered, or not. It has no secret.
type Request struct {
	Time       time.Time
	Op         Op
	Vault      string
	Key        string
	Version    string // as the client wrote it; "" if it left it out
	Client     string // id, once the token was accepted
	Method     string
	Path       string // as it came, with every slash
	APIVersion string
	Status     int    // 0: the connection was reset or the client went away
	Code       string // of the error, the inner one if there is one
}

// Requests returns what was asked so far, in the order of the answers: the last
// 10,000 of them.
func (s *Server) Requests() []Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.requests)
}

// Calls returns how often an operation was asked for with a valid token, whatever
// came of it: a request that is throttled or reset counts, one that is answered by
// a challenge does not.
func (s *Server) Calls(op Op) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls[op]
}

// ForgetCalls empties the log and sets all counts to zero.
func (s *Server) ForgetCalls() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests = nil
	clear(s.calls)
}

// count notes that an operation was asked for.
func (s *Server) count(op Op) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls[op]++
}

func (s *Server) log(r *Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.requests) == maxRequests {
		s.requests = slices.Delete(s.requests, 0, maxRequests/10)
	}
	s.requests = append(s.requests, *r)
}
