"""Tables and figures to one self-contained page; reads nothing but the run folder."""

from penumbra.report.page import build as build
