"""The report page: run folders -> one self-contained HTML file that people open first."""

from hvdfilter.report.page.write import write_page as write_page
