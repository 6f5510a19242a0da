package control

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"reflect"
	"strconv"
)

// routes is the table of all verbs.
func (s *Server) routes() []route {
	b := s.cfg.Backend
	return []route{
		{"GET /v1/status", RoleViewer, get(s, func(r *http.Request) (Status, error) { return b.Status(r.Context()) })},
		{"GET /v1/version", RoleViewer, get(s, func(r *http.Request) (Version, error) { return b.Version(r.Context()) })},
		{"GET /v1/openapi", RoleViewer, verb{serve: describe, status: http.StatusOK, kind: contentYAML}},
		{"POST /v1/doctor", RoleOperator, get(s, func(r *http.Request) (Diagnosis, error) { return b.Diagnose(r.Context()) })}, // it tries keys
		{"POST /v1/config/check", RoleViewer, post(s, http.StatusOK, b.CheckConfig)},
		{"POST /v1/config/reload", RoleOperator, get(s, func(r *http.Request) (ConfigReport, error) { return b.ReloadConfig(r.Context()) })},
		{"POST /v1/audit/verify", RoleViewer, post(s, http.StatusOK, b.VerifyAudit)},

		{"GET /v1/vaults", RoleViewer, list(s, func(r *http.Request) ([]Vault, error) { return b.Vaults(r.Context()) })},
		{"GET /v1/vaults/{vault}", RoleViewer, get(s, func(r *http.Request) (Vault, error) {
			return b.Vault(r.Context(), r.PathValue("vault"))
		})},
		{"POST /v1/vaults", RoleKeyAdmin, post(s, http.StatusCreated, b.CreateVault)},
		{"POST /v1/vaults/mode", RoleKeyAdmin, post(s, http.StatusAccepted, checked(checkMode, b.RaiseMode))},
		{"GET /v1/keys", RoleViewer, list(s, func(r *http.Request) ([]Key, error) { return b.Keys(r.Context()) })},
		{"POST /v1/keys", RoleKeyAdmin, post(s, http.StatusCreated, b.CreateKey)},
		{"GET /v1/keys/{key}/usage", RoleViewer, get(s, func(r *http.Request) (KeyUsage, error) {
			return b.KeyUsage(r.Context(), KeyUsageRequest{Key: r.PathValue("key"), Version: r.URL.Query().Get("version")})
		})},
		{"POST /v1/keys/check", RoleOperator, post(s, http.StatusOK, b.CheckKey)}, // it asks the provider to unwrap
		{"POST /v1/keys/link", RoleKeyAdmin, post(s, http.StatusOK, checked(checkLink, b.LinkKey))},
		{"POST /v1/keys/rotate", RoleKeyAdmin, post(s, http.StatusAccepted, b.RotateKeys)},
		{"POST /v1/keys/revalidate", RoleKeyAdmin, post(s, http.StatusOK, b.Revalidate)},
		{"POST /v1/keys/drill", RoleKeyAdmin, post(s, http.StatusAccepted, b.DrillKeys)},

		{"GET /v1/items", RoleViewer, list(s, func(r *http.Request) ([]Item, error) { return b.Items(r.Context()) })},
		{"GET /v1/items/{item}", RoleViewer, get(s, func(r *http.Request) (Item, error) {
			return b.Item(r.Context(), r.PathValue("item"))
		})},
		{"POST /v1/items/erase", RoleKeyAdmin, post(s, http.StatusOK, checked(checkErase, b.EraseItem))},
		{"GET /v1/points", RoleViewer, slow(streaming[Point](s.points))},
		{"GET /v1/items/{item}/points/{point}", RoleViewer, get(s, func(r *http.Request) (Point, error) {
			return b.Point(r.Context(), r.PathValue("item"), r.PathValue("point"))
		})},
		{"GET /v1/items/{item}/points/{point}/entries", RoleRestorer, slow(streaming[Entry](s.entries))},
		{"GET /v1/items/{item}/points/{point}/diff", RoleRestorer, slow(streaming[DiffEntry](s.diff))},
		{"GET /v1/items/{item}/points/{point}/content", RoleRestorer, slow(verb{serve: s.content, status: http.StatusOK, kind: contentOctets})},

		{"POST /v1/points/hold", RoleKeyAdmin, post(s, http.StatusOK, checked(checkHold, b.HoldPoint))},
		{"POST /v1/points/release", RoleKeyAdmin, post(s, http.StatusOK, b.ReleasePoint)},
		{"POST /v1/points/forget", RoleKeyAdmin, post(s, http.StatusOK, checked(checkForget, listed(b.ForgetPoints)))},
		{"POST /v1/prune", RoleOperator, post(s, http.StatusAccepted, s.prune)},

		{"GET /v1/policies", RoleViewer, list(s, func(r *http.Request) ([]Policy, error) { return b.Policies(r.Context()) })},
		{"GET /v1/policies/{policy}/explain", RoleViewer, get(s, func(r *http.Request) (Explanation, error) {
			return b.Explain(r.Context(), r.PathValue("policy"))
		})},
		{"POST /v1/policies/run", RoleOperator, post(s, http.StatusAccepted, listed(b.RunPolicy))},

		{"POST /v1/backup", RoleOperator, post(s, http.StatusAccepted, b.Backup)},
		{"POST /v1/restore", RoleRestorer, post(s, http.StatusAccepted, checked(checkRestore, b.Restore))},
		{"POST /v1/verify", RoleOperator, post(s, http.StatusAccepted, checked(checkVerify, b.Verify))},

		{"GET /v1/jobs", RoleViewer, list(s, s.jobs)},
		{"GET /v1/jobs/{id}", RoleViewer, get(s, s.job)},
		{"POST /v1/jobs/{id}/cancel", RoleOperator, get(s, s.cancel)},
		{"GET /v1/jobs/{id}/events", RoleViewer, streaming[Event](s.events)},
		{"PUT /v1/jobs/{id}/input", RoleOperator, verb{serve: s.input, raw: true, out: reflect.TypeFor[struct{}](), status: http.StatusOK, kind: contentJSON}},
	}
}

// verb serves requests. An error of serve is sent to the caller.
type verb struct {
	serve   func(http.ResponseWriter, *http.Request) error
	patient bool // the caller may be slow to take the reply
	raw     bool // serve reads the body itself
	// What it takes and gives, for the description of the interface: nil for a request
	// without a body, and for raw bytes.
	in, out reflect.Type
	status  int
	kind    string // content type of the reply
}

// get serves a value that needs no request body.
func get[T any](s *Server, f func(*http.Request) (T, error)) verb {
	serve := func(w http.ResponseWriter, r *http.Request) error {
		v, err := f(r)
		if err == nil {
			s.reply(w, http.StatusOK, v)
		}
		return err
	}
	return verb{serve: serve, out: reflect.TypeFor[T](), status: http.StatusOK, kind: contentJSON}
}

// list serves a list, which is never null.
func list[T any](s *Server, f func(*http.Request) ([]T, error)) verb {
	full := listed(func(_ context.Context, r *http.Request) ([]T, error) { return f(r) })
	return get(s, func(r *http.Request) ([]T, error) { return full(r.Context(), r) })
}

// listed is f with a list that is never nil.
func listed[Q, T any](f func(context.Context, Q) ([]T, error)) func(context.Context, Q) ([]T, error) {
	return func(ctx context.Context, q Q) ([]T, error) {
		v, err := f(ctx, q)
		if v == nil {
			v = []T{}
		}
		return v, err
	}
}

// post serves the answer to a JSON object.
func post[Q, A any](s *Server, status int, f func(context.Context, Q) (A, error)) verb {
	serve := func(w http.ResponseWriter, r *http.Request) error {
		var q Q
		if err := readBody(w, r, &q); err != nil {
			return err
		}
		a, err := f(r.Context(), q)
		if err == nil {
			s.reply(w, status, a)
		}
		return err
	}
	return verb{serve: serve, in: reflect.TypeFor[Q](), out: reflect.TypeFor[A](), status: status, kind: contentJSON}
}

// streaming serves values one by one, as long as there are any.
func streaming[T any](serve func(http.ResponseWriter, *http.Request) error) verb {
	return verb{serve: serve, out: reflect.TypeFor[T](), status: http.StatusOK, kind: contentNDJSON}
}

// slow is v for callers that may be slow to take the reply: a pager, a pipe.
func slow(v verb) verb {
	v.patient = true
	return v
}

// readBody reads the JSON object of a request.
func readBody(w http.ResponseWriter, r *http.Request, v any) error {
	err := decodeStrict(http.MaxBytesReader(w, r.Body, maxBody), v)
	if err == nil {
		relax(w)
		return nil
	}
	e := &Error{Code: CodeBadRequest, Message: fmt.Sprintf("read request: %v", err)}
	var large *http.MaxBytesError
	if errors.As(err, &large) {
		e.Message = fmt.Sprintf("read request: it is larger than %d bytes", large.Limit)
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		e.Message = "read request: the rest of it did not come in time"
	}
	return e
}

// checked runs check before f.
func checked[Q, A any](check func(Q) error, f func(context.Context, Q) (A, error)) func(context.Context, Q) (A, error) {
	return func(ctx context.Context, q Q) (A, error) {
		if err := check(q); err != nil {
			var none A
			return none, err
		}
		return f(ctx, q)
	}
}

func (s *Server) jobs(r *http.Request) ([]Job, error) {
	q := r.URL.Query()
	limit, err := number(q, "limit")
	if err != nil {
		return nil, err
	}
	return s.cfg.Backend.Jobs(r.Context(), JobFilter{Item: q.Get("item"), State: JobState(q.Get("state")), Limit: limit})
}

// number reads a number of a query; 0 if it is not there.
func number(q url.Values, name string) (int, error) {
	text := q.Get(name)
	if text == "" {
		return 0, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 {
		return 0, &Error{Code: CodeBadRequest, Message: fmt.Sprintf("%s %q is not a number", name, text)}
	}
	return n, nil
}

func (s *Server) job(r *http.Request) (Job, error) {
	id, err := parseID(r.PathValue("id"))
	if err != nil {
		return Job{}, err
	}
	return s.cfg.Backend.Job(r.Context(), id)
}

func (s *Server) cancel(r *http.Request) (struct{}, error) {
	id, err := parseID(r.PathValue("id"))
	if err != nil {
		return struct{}{}, err
	}
	return struct{}{}, s.cfg.Backend.Cancel(r.Context(), id)
}

// prune lets operators do what the configuration says, and only those who may forget
// points allow that none is left.
func (s *Server) prune(ctx context.Context, q PruneRequest) (Job, error) {
	peer := PeerFrom(ctx)
	if have := s.cfg.Role(peer); q.AllowEmpty && have < RoleKeyAdmin {
		return Job{}, forbidden(peer, have, RoleKeyAdmin)
	}
	return s.cfg.Backend.Prune(ctx, q)
}
