package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"time"

	"github.com/cofferbackup/coffer/agent/control/quota"
)

var (
	errTrailing = errors.New("there is more after the JSON object")
	errPathsRaw = errors.New("paths_raw and paths differ in length")
	errNoPeer   = errors.New("request did not come over a socket")
)

const nextVersion = "use a coffer of the agent's version: coffer version shows both"

// ServerConfig is what a Server needs.
type ServerConfig struct {
	Backend Backend
	Logger  *slog.Logger
	// Role decides what a caller may do; Access.Role is one.
	Role func(Peer) Role
	// Version is told in every reply, so that a client of another version notices.
	Version  string
	Quota    quota.Limits
	Patience Patience
}

// Server answers on the control socket.
type Server struct {
	cfg   ServerConfig
	mux   *http.ServeMux
	quota *quota.Quota
}

// NewServer returns a server that is ready to serve.
func NewServer(cfg ServerConfig) *Server {
	cfg.Patience = cfg.Patience.withDefaults()
	s := &Server{cfg: cfg, mux: http.NewServeMux(), quota: quota.New(cfg.Quota, time.Now)}
	for _, r := range s.routes() {
		s.mux.Handle(r.pattern, s.guard(r))
	}
	s.mux.Handle("/", s.guard(route{need: RoleViewer, verb: verb{serve: s.unknown, raw: true}}))
	return s
}

// Serve answers on l until ctx ends, then lets replies under way finish for a few
// seconds. It closes l. It returns nil after ctx has ended.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	srv := &http.Server{
		Handler:           s,
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ConnContext:       identify,
		ErrorLog:          slog.NewLogLogger(s.cfg.Logger.Handler(), slog.LevelDebug),
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(&door{Listener: l, server: s, told: make(chan struct{}, turnedAway)}) }()
	select {
	case err := <-served:
		return fmt.Errorf("serve control socket: %w", err)
	case <-ctx.Done():
	}
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTimeout)
	defer cancel()
	if srv.Shutdown(drain) != nil {
		srv.Close()
	}
	<-served
	return nil
}

// ServeHTTP answers one request. Its context must have a Peer.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set(headerVersion, s.cfg.Version)
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Cache-Control", "no-store")
	rec := &recorder{ResponseWriter: w, patience: s.cfg.Patience.Reply}
	if r.ContentLength != 0 {
		hurry(rec, s.cfg.Patience.Body)
		// What a handler leaves of the body is read before the next request.
		defer hurry(rec, s.cfg.Patience.Body)
	}
	defer rec.hurry() // for what is still gathered when the handler is done
	for _, refuse := range []func(http.ResponseWriter, *http.Request) error{s.admit, fromBrowser} {
		if err := refuse(rec, r); err != nil {
			s.fault(rec, r, err)
			return
		}
	}
	s.mux.ServeHTTP(rec, r)
}

// fromBrowser refuses what a web page could send through somebody's browser.
func fromBrowser(_ http.ResponseWriter, r *http.Request) error {
	if r.Host != socketHostname && r.Host != "localhost" {
		return &Error{Code: CodeForbidden, Message: fmt.Sprintf("host %q is not this agent", r.Host)}
	}
	for _, h := range []string{"Origin", "Referer"} {
		if r.Header.Get(h) != "" {
			return &Error{Code: CodeForbidden, Message: "requests of web pages are refused"}
		}
	}
	return nil
}

// route is one verb and the least role that may use it.
type route struct {
	pattern string
	need    Role
	verb
}

// guard lets those in who may, and turns what goes wrong into a reply.
func (s *Server) guard(r route) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		rec := w.(*recorder) // as ServeHTTP made it
		defer s.caught(rec, req)
		peer := PeerFrom(req.Context())
		if have := s.cfg.Role(peer); have < r.need || have == RoleNone {
			s.cfg.Logger.Warn("control caller refused", "peer", peer.String(), "method", req.Method, "path", req.URL.Path)
			s.fault(rec, req, forbidden(peer, have, r.need))
			return
		}
		if r.patient {
			rec.patience = s.cfg.Patience.Stream
		}
		if r.in == nil && !r.raw && req.ContentLength != 0 {
			s.fault(rec, req, &Error{Code: CodeBadRequest, Message: "this request takes no body", Next: "leave it out"})
			return
		}
		if err := r.serve(rec, req); err != nil {
			s.fault(rec, req, err)
		}
	})
}

// caught ends a request whose handler panicked: the agent goes on.
func (s *Server) caught(rec *recorder, req *http.Request) {
	v := recover()
	if v == nil {
		return
	}
	if v == http.ErrAbortHandler { //nolint:errorlint // the documented comparison
		panic(v)
	}
	s.cfg.Logger.Error("control request panicked", "method", req.Method, "path", req.URL.Path,
		"panic", fmt.Sprint(v), "stack", string(debug.Stack()))
	s.fault(rec, req, &Error{Code: CodeInternal, Message: "a bug in the agent", Next: "see its log, and report it"})
}

// fault sends err. If a reply has begun, it tears it: the caller sees that it is
// not whole.
func (s *Server) fault(w http.ResponseWriter, _ *http.Request, err error) {
	if rec, ok := w.(*recorder); ok && rec.wrote {
		panic(http.ErrAbortHandler)
	}
	e := AsError(err)
	s.reply(w, e.Code.httpStatus(), errorBody{e})
}

type errorBody struct {
	Error *Error `json:"error"`
}

// reply sends v as JSON. That it does not arrive is the caller's loss alone.
func (s *Server) reply(w http.ResponseWriter, status int, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Errorf("encode reply: %w", err))
	}
	w.Header().Set("Content-Type", contentJSON)
	w.WriteHeader(status)
	w.Write(append(b, '\n')) //nolint:errcheck // see above
}

func (s *Server) unknown(_ http.ResponseWriter, r *http.Request) error {
	return &Error{
		Code: CodeNotFound, Message: fmt.Sprintf("this agent (%s) has no %s %s", s.cfg.Version, r.Method, r.URL.Path),
		Next: nextVersion,
	}
}

// recorder knows whether a reply has begun, and does not wait for ever for a caller
// who does not take it.
type recorder struct {
	http.ResponseWriter
	patience time.Duration
	wrote    bool
}

// hurry gives the caller so long to take the next piece of the reply.
func (r *recorder) hurry() {
	http.NewResponseController(r.ResponseWriter).SetWriteDeadline(time.Now().Add(r.patience)) //nolint:errcheck // see limit.go
}

func (r *recorder) WriteHeader(status int) {
	r.wrote = true
	r.ResponseWriter.WriteHeader(status)
}

func (r *recorder) Write(p []byte) (int, error) {
	r.wrote = true
	r.hurry()
	return r.ResponseWriter.Write(p)
}

// FlushError is for http.ResponseController.
func (r *recorder) FlushError() error {
	r.hurry()
	return http.NewResponseController(r.ResponseWriter).Flush()
}

// Unwrap is for http.ResponseController.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }
