"""Tables and figures to one self-contained page; reads nothing but the run folder."""

from penumbra.report.card import write_card as write_card
from penumbra.report.page import build as build
from penumbra.report.pdf import print_pdf as print_pdf
